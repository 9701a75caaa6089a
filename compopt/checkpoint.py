"""Checkpoint files that are whole, or refused."""

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
    """A file is not a checkpoint, or was damaged; nothing of it was used."""


def save_checkpoint(path: str | os.PathLike[str], state: Any) -> None:
    """Write ``state`` to a file so that a kill leaves the old file or the new one.

    Threads and processes may save to one path at the same time, and read it meanwhile. The file is
    written beside ``path`` under a name that ends in 16 random digits and ``.part``, flushed to the
    disk, and renamed. After an error, such as that of a full disk, it is gone and the old one is as
    before; a killed process leaves it behind, to be removed when nobody saves.

    Args:
        path: of the file; its folder must exist. A file that exists keeps its permissions, a
            symbolic link goes on to lead where it leads.
        state: of tensors, numbers, text, lists and dictionaries, as state dicts are.

    Raises:
        TypeError: if ``state`` holds a sharded tensor, of which this process has only a part.
        ValueError: if ``path`` is of a folder or a device.
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
    """Return what :func:`save_checkpoint` wrote, after its digest has been verified.

    ``torch.load`` by itself does not notice a flipped bit in a tensor. Only tensors and plain
    values are read (``weights_only``), so that a file from elsewhere runs no code.

    Args:
        path: of the file.
        map_location: of ``torch.load``.

    Raises:
        CheckpointError: if the file is of another kind, truncated or damaged, or does not fit this
            machine.
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
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise CheckpointError(
            f"{path} holds {len(data)} bytes that are not all that `torch.save` writes, although "
            "they have their digest: they were cut off before it was made. Go back to an earlier "
            "checkpoint, and write with `save_checkpoint`."
        )
    try:
        return torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = found[1] if found else str(error)
        raise CheckpointError(
            f"{path} holds more than tensors and plain values: {what}. Save what it consists of, "
            "such as a state dict; a class that you trust loads inside "
            "`torch.serialization.safe_globals([that_class])`."
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path} is whole, but cannot be loaded here: {error}") from error
