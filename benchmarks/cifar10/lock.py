"""A lock that allows one process at a time in the folder of a cell."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cifar10.errors import BenchmarkError

FILE = "lock"


class HeldError(BenchmarkError):
    """Another process runs the cell."""


@contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder. The system releases it when the process ends, in any way.

    Args:
        folder: folder of a cell or a sweep.
        wait: whether to wait until it is free.

    Raises:
        HeldError: if another process holds it, including a suspended process.
    """
    with (folder / FILE).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise HeldError(f"{folder} is being run by another process.") from error
        yield


def is_held(folder: Path) -> bool:
    """Return True if a process holds the folder."""
    if not (folder / FILE).exists():
        return False
    try:
        with held(folder):
            return False
    except HeldError:
        return True
