"""Checkpoints that survive kills and full disks, and are verified when they are read."""

import os
from pathlib import Path
from typing import Any

from benchmarks.cifar10.errors import BenchmarkError
from compopt.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

CURRENT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` as the current checkpoint, and keep the previous one.

    The current name always refers to a complete checkpoint.

    Args:
        folder: the run's folder.
        state: tensors, numbers, strings, and containers of these.

    Raises:
        BenchmarkError: if it cannot be written; earlier checkpoints do not change.
    """
    current, link = folder / CURRENT, folder / "checkpoint.part"
    try:
        if current.exists():
            link.unlink(missing_ok=True)
            os.link(current, link)
        save_checkpoint(current, state)
        if link.exists():
            link.replace(folder / PREVIOUS)
    except OSError as error:
        link.unlink(missing_ok=True)
        raise BenchmarkError(
            f"The checkpoint of step {state.get('step')} could not be written to {folder}: "
            f"{error.strerror}. Earlier checkpoints are kept: make room and run the same command "
            "again to go on from there."
        ) from error


def load(folder: Path) -> dict[str, Any] | None:
    """Return the current checkpoint, or None if the run has none yet.

    Raises:
        BenchmarkError: if it is damaged; the message says whether the previous one is intact.
    """
    current, previous = folder / CURRENT, folder / PREVIOUS
    if not current.exists():
        return read(previous) if previous.exists() else None
    try:
        return read(current)
    except BenchmarkError as error:
        try:
            step = read(previous)["step"]
        except (BenchmarkError, OSError):
            remedy = f"No earlier one is whole: remove {folder} to start the cell anew."
        else:
            remedy = f"The earlier {PREVIOUS} (step {step}) is whole: remove {CURRENT} to go on "
            remedy += "from there, to the same weights."
        raise BenchmarkError(f"{error} {remedy}") from error


def read(file: Path) -> dict[str, Any]:
    """Return the state in a checkpoint file.

    Raises:
        BenchmarkError: if the file is damaged.
    """
    try:
        state = load_checkpoint(file, map_location="cpu")
    except CheckpointError as error:
        raise BenchmarkError(str(error)) from error
    if not isinstance(state, dict) or "step" not in state:
        raise BenchmarkError(f"{file} is not a checkpoint of this program.")
    return state
