"""Who runs a cell: claims as files, so that machines with a shared file system can share a sweep.

A claim is the file ``claim.N`` in the cell's folder; that of the largest N counts. Its owner
touches it from time to time. One that has not been touched for a while, or whose process is known
to be gone, is stale: another process may create ``claim.N+1``, which exactly one can, as the file
system creates a file exclusively. An owner that was only asleep sees the larger number and stops.
No claim is ever removed or taken over in place, so there is no moment at which two could both
believe that they hold it.
"""

import contextlib
import json
import os
import re
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.cifar10.errors import BenchmarkError, Interrupted

PATIENCE = 120.0
"""Seconds without a touch after which a claim is stale."""
PATTERN = re.compile(r"claim\.(\d+)")


class HeldError(BenchmarkError):
    """Another process runs the cell."""


def _place() -> str:
    """Return a name of this machine's present life and process table, in which ids are unique."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(process: int) -> str | None:
    """Return when a process of this machine began, None if it is gone."""
    try:
        # The name may hold blanks; what follows it does not.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _numbers(folder: Path) -> list[int]:
    found = (PATTERN.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _now(folder: Path) -> float:
    """Return the time by the clock that stamps the folder's files, which may not be ours."""
    file = folder / f".clock.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    try:
        file.touch()
        return file.stat().st_mtime
    finally:
        file.unlink(missing_ok=True)


def holder(folder: Path, patience: float = PATIENCE) -> dict[str, Any] | None:
    """Return what the valid claim on a cell says of its owner, None if the cell is free."""
    numbers = _numbers(folder) if folder.is_dir() else []
    if not numbers:
        return None
    file = folder / f"claim.{numbers[-1]}"
    try:
        touched = file.stat().st_mtime
        text = file.read_text()
    except FileNotFoundError:
        return None
    if touched == 0 or _now(folder) - touched > patience:
        return None
    try:
        owner: dict[str, Any] = json.loads(text)
    except ValueError:
        # Created this moment, and not yet written.
        return {"process": 0, "place": "", "started": None}
    is_gone = owner["place"] == _place() and _started(owner["process"]) != owner["started"]
    return None if is_gone else owner


class Claim:
    """The right to run a cell, as a context.

    Args:
        folder: of the cell; it exists.
        patience: seconds after which an untouched claim is stale.

    Raises:
        HeldError: on entry, if another process holds the cell.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        self.folder = folder
        self.patience = patience
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def file(self) -> Path:
        """The claim's file."""
        return self.folder / f"claim.{self._number}"

    def __enter__(self) -> "Claim":
        numbers = _numbers(self.folder)
        owner = holder(self.folder, self.patience)
        if owner is not None:
            raise HeldError(
                f"{self.folder} is being run by process {owner['process']}. Wait for it, or end it."
            )
        self._number = (numbers[-1] if numbers else 0) + 1
        try:
            descriptor = os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError as error:
            raise HeldError(f"{self.folder} was claimed by another process this moment.") from error
        with os.fdopen(descriptor, "w") as stream:
            process = os.getpid()
            owner = {"process": process, "place": _place(), "started": _started(process)}
            stream.write(json.dumps(owner))
        self._thread = threading.Thread(target=self._touch, daemon=True)
        self._thread.start()
        return self

    def _touch(self) -> None:
        while not self._stop.wait(self.patience / 8):
            with contextlib.suppress(OSError):
                os.utime(self.file)

    def check(self) -> None:
        """Raise Interrupted if the claim went to another process while this one was asleep."""
        if _numbers(self.folder)[-1] != self._number:
            raise Interrupted("Another process has taken the cell over.")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # Stale from now on. It stays, so that its number is not given twice.
        with contextlib.suppress(OSError):
            os.utime(self.file, (0, 0))
