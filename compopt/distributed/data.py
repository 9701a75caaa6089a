"""What processes need in addition to the optimizer: equal beginnings, and steps in common."""

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

    Raises:
        ValueError: on all ranks, if their modules have other tensors; nothing is then copied.
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

    Cost: one gathering of 40 bytes.
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

    Ranks with fewer batches would leave the others waiting in the middle of a step. A rank that
    skips a step comes to its next batch while the others are at the step, and all are told.

    Args:
        batches: of this rank.
        device: one that the group's backend can use.
        process_group: all processes if None.

    Raises:
        CollectiveError: on all ranks, if they are not at the same batch.

    Cost: one gathering of 40 bytes per batch.
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
