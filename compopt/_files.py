"""Files that are replaced whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Give a new file to write to, which takes the place of ``path`` when the block ends.

    Readers and other writers see a whole file at any moment, and so does who comes after a kill or
    a power failure. If anything is raised, ``path`` is as before and the new file is gone. Until
    the block ends it is a draft in the folder of ``path``, named after it with 16 random
    hexadecimal digits and ``.part``. Only a killed process leaves one.

    Args:
        path: of the file; its folder must exist. Of a symbolic link, the file that it leads to is
            replaced. A file that exists keeps its permissions; a new one has the usual ones.

    Raises:
        ValueError: if ``path`` exists and is not a regular file.
        OSError: if the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "No such folder; make it first, `os.makedirs`", str(target.parent)
        )
    mode = _mode(target)
    draft = target.with_name(f"{target.name[:50]}.{secrets.token_hex(8)}.part")

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if mode is None else mode)

    # "x" neither opens what exists nor follows a link of that name.
    file = open(draft, "xb", opener=create)  # noqa: SIM115
    try:
        with file:
            if mode is not None and hasattr(os, "fchmod"):
                # Of the mode above, the process's mask has taken bits away.
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(target.parent)


def _mode(file: Path) -> int | None:
    """Return the permissions of a file, None if there is none."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise ValueError(
            f"`path` must name a regular file or none yet, got {file}. If it is a folder, add the "
            "name of a file."
        )
    return stat.S_IMODE(mode)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename outlives a power failure."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # Windows opens no folders, and some can be written to and not read.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have nothing to flush.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
