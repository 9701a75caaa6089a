"""Checkpoints that survive a kill at any moment, a full disk, and are not trusted when damaged."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.cifar10.errors import BenchmarkError
from compopt._files import replacing

CURRENT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` as the current checkpoint, and keep the last one beside it.

    At each moment at least one whole checkpoint has one of the two names.

    Args:
        folder: of the run.
        state: tensors, numbers, strings, and containers of these.

    Raises:
        BenchmarkError: if it cannot be written; earlier checkpoints are as they were.
    """
    current = folder / CURRENT
    try:
        with replacing(current) as stream:
            torch.save(state, stream)
            # All of it is on the disk before the last one moves away.
            stream.flush()
            os.fsync(stream.fileno())
            if current.exists():
                current.replace(folder / PREVIOUS)
    except (OSError, RuntimeError) as error:
        # torch wraps what the disk says in a RuntimeError of its archive writer.
        raise BenchmarkError(
            f"The checkpoint of step {state.get('step')} could not be written to {folder}: "
            f"{_reason(error)}. Earlier checkpoints are kept: make room and run the same command "
            "again to go on from there."
        ) from error


def _reason(error: BaseException) -> str:
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError):
            return chain.strerror or str(chain)
        chain = chain.__cause__ or chain.__context__
    return str(error).splitlines()[0]


def load(folder: Path) -> dict[str, Any] | None:
    """Return the current checkpoint, or None if the run has none yet.

    A kill between the two renames leaves only the previous one, which is then current.

    Raises:
        BenchmarkError: if the current checkpoint is damaged; it says whether the previous one is
            whole.
    """
    current, previous = folder / CURRENT, folder / PREVIOUS
    if not current.exists():
        return read(previous) if previous.exists() else None
    try:
        return read(current)
    except BenchmarkError as error:
        raise BenchmarkError(f"{error} {_remedy(folder)}") from error


def _remedy(folder: Path) -> str:
    previous = folder / PREVIOUS
    try:
        step = read(previous)["step"] if previous.exists() else None
    except BenchmarkError:
        step = None
    if step is None:
        return f"No earlier one is whole: remove {folder} to start the cell anew."
    return (
        f"The earlier {PREVIOUS} (step {step}) is whole: remove {CURRENT} to go on from there, to "
        "the same weights."
    )


def read(file: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, after comparing every checksum in it.

    Raises:
        BenchmarkError: if the file is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise BenchmarkError(f"{file} is damaged (in {damaged}).")
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
    ) as error:
        raise BenchmarkError(f"{file} is damaged ({error}).") from error
    if not isinstance(state, dict) or "step" not in state:
        raise BenchmarkError(f"{file} is not a checkpoint of this program.")
    return state
