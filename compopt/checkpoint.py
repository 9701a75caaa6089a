"""Checkpoint files that are written atomically and verified when loaded."""

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from compopt._checks import is_sharded
from compopt._files import replacing

_MAGIC = b"compopt checkpoint 1\n"
_DIGEST_SIZE = hashlib.sha256().digest_size


class CheckpointError(RuntimeError):
    """A file is not a checkpoint, is damaged or cannot be loaded; none of it was used."""


def save_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Write ``state`` to a file atomically: a kill leaves either the old file or the new one.

    Threads and processes may save to one path and read it at the same time. The new file is written
    next to ``path`` under a name that ends in 16 random hexadecimal digits and ``.part``, flushed
    to the disk, and renamed. After an error, such as a full disk, it is removed and the old file is
    unchanged. A killed process leaves it behind; remove it when no process is saving.

    Args:
        path: path of the file; its folder must exist. An existing file keeps its permissions; a
            symbolic link is kept, and its target is replaced.
        state: tensors, numbers, text, lists and dictionaries, such as a state dict.

    Raises:
        TypeError: if ``state`` holds a sharded tensor, of which this process has only a part.
        ValueError: if ``path`` is a folder or a device.
        OSError: if the file cannot be written.
    """
    if _holds_sharded(state):
        raise TypeError(
            "`state` must hold whole tensors, got a sharded one, of which this process has only a "
            "part. Save it with `torch.distributed.checkpoint.save(state, checkpoint_id=folder)` "
            "on all ranks, or gather it first with `get_optimizer_state_dict(module, optimizer, "
            "options=StateDictOptions(full_state_dict=True))` of "
            "`torch.distributed.checkpoint.state_dict`."
        )
    payload = io.BytesIO()
    torch.save(state, payload)
    data = payload.getbuffer()
    with replacing(path) as file:
        file.write(_MAGIC + hashlib.sha256(data).digest())
        file.write(data)


def _holds_sharded(value: object) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return is_sharded(value)
    return any(map(_holds_sharded, value))


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a file written by :func:`save_checkpoint` after verifying its digest.

    Without the digest, ``torch.load`` would not notice a flipped bit in a tensor. Only tensors and
    plain values are loaded (``weights_only``), so an untrusted file cannot run code.

    Args:
        path: path of the file.
        map_location: see ``torch.load``.

    Raises:
        CheckpointError: if the file is not a checkpoint, is truncated or damaged, or cannot be
            loaded on this machine.
        OSError: if the file cannot be read.

    Example:
        >>> save_checkpoint(folder / "last.pt", {"step": 3})  # doctest: +SKIP
        >>> load_checkpoint(folder / "last.pt")  # doctest: +SKIP
        {'step': 3}
    """
    content = Path(path).read_bytes()
    start = len(_MAGIC) + _DIGEST_SIZE
    if content[: len(_MAGIC)] != _MAGIC:
        raise CheckpointError(
            f"{path} has no header of a checkpoint. Write it with `save_checkpoint`; read "
            "other files with `torch.load(path, weights_only=True)`."
        )
    digest, data = content[len(_MAGIC) : start], content[start:]
    if hashlib.sha256(data).digest() != digest:
        raise CheckpointError(
            f"{path} is truncated or damaged: its {len(data)} bytes do not have the digest that "
            "was written with them. Go back to an earlier checkpoint."
        )
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise CheckpointError(
            f"{path} holds {len(data)} bytes that match their digest but are no complete archive "
            "of `torch.save`: they were cut off before the digest was made. Go back to an earlier "
            "checkpoint, and write with `save_checkpoint`."
        )
    try:
        return torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = found[1] if found else str(error)
        raise CheckpointError(
            f"{path} holds more than tensors and plain values: {what}. Save its contents, "
            "such as a state dict; a class that you trust loads inside "
            "`torch.serialization.safe_globals([that_class])`."
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path} is whole, but cannot be loaded here: {error}") from error
