"""What processes need besides the optimizer: equal beginnings, and steps in common."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from compopt._checks import check_count
from compopt._warn import warn
from compopt.distributed.collectives import Collectives

T = TypeVar("T")


class UnwrapWarning(UserWarning):
    """Modules were taken out of their distributed wrappers."""


def unwrap(*modules: nn.Module) -> tuple[nn.Module, ...]:
    """Return modules without their ``DistributedDataParallel``, whose place the optimizer takes.

    The wrapper reduces what ``backward()`` leaves in ``.grad``. A competitive step differentiates
    with ``torch.autograd.grad``, of which the wrapper sees nothing: all that it would do is copy
    buffers between ranks at each forward pass. Compute the loss with the modules returned here;
    parameters and buffers are the same objects.

    Args:
        modules: wrapped or not.

    Returns:
        As many modules. One :class:`UnwrapWarning` names all that were wrapped.

    Example:
        >>> (G,) = unwrap(nn.Linear(1, 1))
    """
    kept = tuple(
        module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module
        for module in modules
    )
    wrapped = [type(k).__name__ for k, m in zip(kept, modules, strict=True) if k is not m]
    if wrapped:
        warn(
            f"DistributedDataParallel was taken off {', '.join(wrapped)}: the optimizer's "
            "`process_group` averages gradients and products. Compute the loss with the modules "
            "that `unwrap` returns.",
            UnwrapWarning,
        )
    return kept


def broadcast_parameters(
    *modules: nn.Module, process_group: "dist.ProcessGroup | None" = None
) -> None:
    """Copy parameters and buffers of the group's first rank to all its ranks.

    Args:
        modules: the same on all ranks but for their values. Modified.
        process_group: all processes if None.
    """
    collectives = Collectives(_group(process_group))
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            collectives.first_(tensor.detach(), "the initial parameters")


def batch_weight(
    num_samples: int,
    *,
    device: torch.device | str = "cpu",
    process_group: "dist.ProcessGroup | None" = None,
) -> Tensor:
    """Return the factor by which this rank's mean loss counts, where ranks have unequal batches.

    The optimizer takes the mean over ranks. With n samples here, N on all k ranks, and losses that
    are means over samples, ``k n / N`` times each rank's loss averages to that of all samples.
    A rank without samples still takes part, with weight zero and a loss that depends on both
    players, such as ``0 * sum(p.sum() for p in params)``.

    Args:
        num_samples: of this rank's batch, >= 0.
        device: one that the group's backend can use.
        process_group: all processes if None.

    Returns:
        0-dim float64.

    Raises:
        ValueError: if there is no sample on any rank.

    Cost: one all-reduce of 8 bytes.
    """
    check_count("num_samples", num_samples, minimum=0)
    collectives = Collectives(_group(process_group))
    total = torch.tensor(num_samples, dtype=torch.float64, device=device)
    collectives.sum_(total, "the numbers of samples").wait()
    if not total:
        raise ValueError("`num_samples` is 0 on all ranks; a step needs at least one sample.")
    return collectives.size * num_samples / total


def while_all_have(
    batches: Iterable[T],
    *,
    device: torch.device | str = "cpu",
    process_group: "dist.ProcessGroup | None" = None,
) -> Iterator[T]:
    """Yield batches as long as every rank has another one.

    Ranks with fewer batches would leave the others waiting in the middle of a step.

    Args:
        batches: of this rank.
        device: one that the group's backend can use.
        process_group: all processes if None.

    Cost: one all-reduce of 8 bytes per batch.
    """
    collectives = Collectives(_group(process_group))
    iterator = iter(batches)
    while True:
        batch = next(iterator, _END)
        ended = torch.tensor(int(batch is _END), device=device)
        collectives.sum_(ended, "the search for the next batch").wait()
        if ended:
            return
        assert not isinstance(batch, _End)
        yield batch


class _End:
    pass


_END = _End()


def _group(process_group: "dist.ProcessGroup | None") -> "dist.ProcessGroup":
    if process_group is not None:
        return process_group
    if not dist.is_initialized():
        raise RuntimeError(
            "There is no process group. Call `torch.distributed.init_process_group(...)` first."
        )
    world = dist.group.WORLD
    assert world is not None
    return world
