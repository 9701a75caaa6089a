"""Exceptions that stop a run."""


class BenchmarkError(Exception):
    """An error that the user can fix. The message says how; no traceback is needed."""


class Diverged(Exception):  # noqa: N818
    """Training gave non-finite numbers: a result of a cell, not an error of the program."""


class Interrupted(Exception):  # noqa: N818
    """The run was asked to stop and stopped after a checkpoint."""


def require(config: object, name: str, holds: bool, rule: str) -> None:
    """Raise BenchmarkError unless the rule for the attribute called ``name`` (dotted) holds."""
    if not holds:
        value = getattr(config, name.rpartition(".")[2])
        raise BenchmarkError(f"`{name}` must be {rule}, got {value!r}.")
