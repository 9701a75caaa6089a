"""What a run stops for, in one sentence to the user."""


class BenchmarkError(Exception):
    """Something that the user can put right: the message says how, no traceback is needed."""


class Diverged(Exception):  # noqa: N818
    """Training left the finite numbers: an outcome of a cell, not a fault of the program."""


class Interrupted(Exception):  # noqa: N818
    """The run was asked to stop, and did so after a checkpoint."""


def require(config: object, name: str, holds: bool, rule: str) -> None:
    """Raise BenchmarkError unless a rule holds for the attribute of this (dotted) name."""
    if not holds:
        value = getattr(config, name.rpartition(".")[2])
        raise BenchmarkError(f"`{name}` must be {rule}, got {value!r}.")
