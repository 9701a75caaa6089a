"""Atomic replacement of files."""

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
    """Yield a new file to write to, which replaces ``path`` when the block ends.

    Readers see a complete file at any moment, also after a kill or a power failure, and several
    writers may work at once. If the block raises, ``path`` is unchanged and the new file is
    removed. During the block, the new file is a draft in the folder of ``path``: the same name
    with 16 random hexadecimal digits and ``.part``. Only a killed process leaves a draft behind.

    Args:
        path: path of the file; its folder must exist. If it is a symbolic link, its target is
            replaced. An existing file keeps its permissions; a new one gets the default ones.

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

    # Mode "x" neither opens an existing file nor follows a symbolic link.
    file = open(draft, "xb", opener=create)  # noqa: SIM115
    try:
        with file:
            if mode is not None and hasattr(os, "fchmod"):
                # The process's umask has cleared bits of the mode passed to `os.open`.
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
    """Return the permissions of a file, None if it does not exist."""
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
    """Flush a folder to the disk, so that a rename survives a power failure."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # Windows cannot open folders, and some folders are writable but not readable.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems do not support `fsync` on a folder.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
