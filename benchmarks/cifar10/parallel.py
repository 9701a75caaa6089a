"""Run one cell in several ``torchrun`` processes; each computes a part of each draw.

Optimizers average gradients and products, so all processes hold the same networks. Statistics of
batch normalization and normalising terms of penalties are computed on each part.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from benchmarks.cifar10.errors import BenchmarkError


@dataclass(frozen=True)
class Ranks:
    """The processes of a cell.

    Attributes:
        rank: rank of this process; rank 0 writes all files.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """True if this process writes files."""
        return self.rank == 0

    @property
    def group(self) -> "distributed.ProcessGroup | None":
        """Process group in which optimizers share their steps."""
        return distributed.group.WORLD if self.size > 1 else None

    def agreed(self, value: Any) -> Any:
        """Return the first process's value in all processes."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes started by ``torchrun``; without it there is one rank."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    if not distributed.is_available():
        raise BenchmarkError("This build of torch has no distributed package: run one process.")
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield Ranks(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
