"""What a run stops for, in one sentence to the user."""


class BenchmarkError(Exception):
    """Something that the user can put right: the message says how, no traceback is needed."""


class Diverged(Exception):  # noqa: N818
    """Training left the finite numbers: an outcome of a cell, not a fault of the program."""


class Interrupted(Exception):  # noqa: N818
    """The run was asked to stop, and did so after a checkpoint."""
