"""Data-parallel helpers: equal initial parameters, unequal batches, equal numbers of steps."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from compopt._checks import check_count
from compopt._warn import warn
from compopt.distributed.collectives import Collectives
from compopt.distributed.fingerprint import number_of
from compopt.distributed.meeting import Act, Notice

T = TypeVar("T")


class UnwrapWarning(UserWarning):
    """A module was unwrapped from ``DistributedDataParallel``."""


def unwrap(*modules: nn.Module) -> tuple[nn.Module, ...]:
    """Return modules without their ``DistributedDataParallel`` wrappers.

    The optimizer's ``process_group`` replaces the wrapper, which reduces what ``backward()`` puts
    into ``.grad``. A competitive step uses ``torch.autograd.grad``, which the wrapper does not see:
    it would only copy buffers between ranks at each forward pass. Compute the loss with the
    returned modules; their parameters and buffers are the same objects.

    Args:
        modules: modules, wrapped or not.

    Returns:
        One module for each argument. If any was wrapped, an :class:`UnwrapWarning` names them.

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
    """Broadcast parameters and buffers from the group's first rank to all ranks.

    Args:
        modules: equal on all ranks except for the values of their tensors. Modified.
        process_group: all processes if None.

    Raises:
        ValueError: on all ranks, if tensors differ in number, shape or dtype; nothing is copied.
    """
    collectives = Collectives(_group(process_group))
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    if not tensors:
        return
    kinds = str([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
    own = Notice(Act.COPY, values=(number_of(kinds.encode()), 0, 0))
    with collectives.until_the_end():
        notices = collectives.meet(own, tensors[0].device)
        if any(notice != own for notice in notices):
            raise ValueError(
                "`broadcast_parameters` got modules whose tensors differ in number, shape or dtype "
                f"between the ranks; rank {collectives.rank} has {len(tensors)}. Build the same "
                "networks on all of them."
            )
        collectives.begin(str(own))
        for tensor in tensors:
            collectives.first_(tensor.detach(), "the initial parameters")


def batch_weight(
    num_samples: int,
    *,
    device: torch.device | str = "cpu",
    process_group: "dist.ProcessGroup | None" = None,
) -> Tensor:
    """Return the factor for this rank's mean loss if ranks have batches of unequal size.

    The optimizer averages over ranks. With n samples on this rank and N on all k ranks, losses that
    are means over samples and multiplied by ``k n / N`` average to the mean over all samples. A
    rank without samples must still step, with weight zero and a loss that depends on both players,
    such as ``0 * sum(p.sum() for p in params)``.

    Args:
        num_samples: number of samples in this rank's batch, >= 0.
        device: a device that the group's backend supports.
        process_group: all processes if None.

    Returns:
        0-dim float64.

    Raises:
        ValueError: if no rank has a sample.

    Cost: one all-gather of 40 bytes.
    """
    check_count("num_samples", num_samples, minimum=0)
    collectives = Collectives(_group(process_group))
    own = Notice(Act.SAMPLES, values=(num_samples, 0, 0))
    notices = collectives.meet(own, torch.device(device))
    total = sum(notice.values[0] for notice in notices)
    if not total:
        raise ValueError("`num_samples` is 0 on all ranks; a step needs at least one sample.")
    weight = collectives.size * num_samples / total
    return torch.tensor(weight, dtype=torch.float64, device=device)


def while_all_have(
    batches: Iterable[T],
    *,
    device: torch.device | str = "cpu",
    process_group: "dist.ProcessGroup | None" = None,
) -> Iterator[T]:
    """Yield batches as long as every rank has another one.

    Otherwise a rank that runs out of batches would leave the others waiting in a step. If a rank
    skips a step, it asks for its next batch while the others are at the step: all ranks raise.

    Args:
        batches: batches of this rank.
        device: a device that the group's backend supports.
        process_group: all processes if None.

    Raises:
        CollectiveError: on all ranks, if they are not at the same batch.

    Cost: one all-gather of 40 bytes per batch.
    """
    collectives = Collectives(_group(process_group))
    iterator = iter(batches)
    for count in itertools.count():
        with collectives.until_the_end():
            batch = next(iterator, _END)
            own = Notice(Act.BATCH, count, (int(batch is _END), 0, 0))
            notices = collectives.meet(own, torch.device(device))
        if any(notice.values[0] for notice in notices):
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
