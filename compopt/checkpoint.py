"""Checkpoint files that are whole, or refused."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

_MAGIC = b"compopt checkpoint 1\n"
_DIGEST_SIZE = hashlib.sha256().digest_size


class CheckpointError(RuntimeError):
    """A file is not a checkpoint, or was damaged; nothing of it was used."""


def save_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Write ``state`` to a file such that a kill leaves the old file or the new one.

    Args:
        path: of the file; its folder must exist.
        state: of tensors, numbers, text, lists and dictionaries, as state dicts are.
    """
    path = Path(path)
    payload = io.BytesIO()
    torch.save(state, payload)
    data = payload.getvalue()
    # Named by process: two that write the same file do not write into each other's draft.
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    with draft.open("wb") as file:
        file.write(_MAGIC + hashlib.sha256(data).digest() + data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Return what :func:`save_checkpoint` wrote, after its digest has been verified.

    ``torch.load`` by itself does not notice a flipped bit in a tensor. Only tensors and plain
    values are read (``weights_only``), so that a file from elsewhere runs no code.

    Args:
        path: of the file.
        map_location: of ``torch.load``.

    Raises:
        CheckpointError: if the file is of another kind, truncated or damaged.
        OSError: if it cannot be read.

    Example:
        >>> save_checkpoint(folder / "last.pt", {"step": 3})  # doctest: +SKIP
        >>> load_checkpoint(folder / "last.pt")  # doctest: +SKIP
        {'step': 3}
    """
    content = Path(path).read_bytes()
    start = len(_MAGIC) + _DIGEST_SIZE
    if content[: len(_MAGIC)] != _MAGIC:
        raise CheckpointError(
            f"{path} does not begin as a checkpoint does. Write it with `save_checkpoint`; read "
            "other files with `torch.load(path, weights_only=True)`."
        )
    digest, data = content[len(_MAGIC) : start], content[start:]
    if hashlib.sha256(data).digest() != digest:
        raise CheckpointError(
            f"{path} is truncated or damaged: its {len(data)} bytes do not have the digest that "
            "was written with them. Go back to an earlier checkpoint."
        )
    try:
        return torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except Exception as error:
        message = f"{path} holds more than tensors and plain values: {error}"
        raise CheckpointError(message) from error
