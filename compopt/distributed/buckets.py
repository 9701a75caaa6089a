"""Sums over processes that overlap with a backward pass."""

from collections.abc import Sequence
from contextvars import copy_context
from functools import partial
from types import TracebackType

import torch
from torch import Tensor

from compopt.distributed.collectives import Collectives, Pending
from compopt.distributed.placement import Pass, sums
from compopt.kernels import gather


def plan_buckets(sizes: Sequence[int], itemsize: int, bucket_bytes: int) -> list[range]:
    """Divide tensors into buckets, in the order in which the buckets are sent.

    A backward pass reaches the last tensors first. So buckets are filled from the last tensor on,
    each until it has at least ``bucket_bytes``.

    Args:
        sizes: number of elements of each tensor.
        itemsize: bytes per element.
        bucket_bytes: size at which a bucket is complete.

    Returns:
        One range of indices of ``sizes`` per bucket. Each index is in exactly one range.

    Example:
        >>> plan_buckets([4, 1, 2, 2], itemsize=4, bucket_bytes=12)
        [range(2, 4), range(0, 2)]
    """
    buckets, stop, filled = [], len(sizes), 0
    for index in reversed(range(len(sizes))):
        filled += sizes[index] * itemsize
        if filled >= bucket_bytes:
            buckets.append(range(index, stop))
            stop, filled = index, 0
    if stop > 0:
        buckets.append(range(stop))
    return buckets


class OverlappedSum:
    """The sum over processes of the derivatives of one backward pass, sent bucket by bucket.

    A context manager for the pass. Hooks on the parameters receive the derivatives as they are
    computed. Once all derivatives of a bucket are there, it is written to its slice of ``out`` and
    sent while the pass continues. All processes send their buckets in the same order, whatever the
    order of their graphs. A derivative that is missing at the end of the pass counts as zero.

    Args:
        collectives: collective operations of the process group.
        source: the backward pass. Its layout has this process's part of each tensor, followed by
            ``extra``.
        out: [size of the layout] vector that receives the sum.
        bucket_bytes: see :func:`plan_buckets`.
        scale: factors for this process's derivatives, shaped as ``out``, or None.
        added: further derivatives of this process, added before the sum, or None.
        extra: further tensors to sum.
    """

    def __init__(
        self,
        collectives: Collectives,
        source: Pass,
        out: Tensor,
        bucket_bytes: int,
        *,
        scale: Tensor | None = None,
        added: Sequence[Tensor | None] | None = None,
        extra: Sequence[Tensor] = (),
    ) -> None:
        self._collectives = collectives
        self._params = source.params
        self._layout = source.layout
        self._out = out
        self._scale = scale
        self._added = added
        self._phase = source.phase
        self._arrived: dict[int, Tensor | None] = {
            len(source.params) + index: tensor for index, tensor in enumerate(extra)
        }
        self._buckets = plan_buckets(source.layout.sizes, out.element_size(), bucket_bytes)
        self._sent: list[Pending] = []
        self._stop = out.numel()

    def __enter__(self) -> "OverlappedSum":
        # Autograd calls hooks of accelerators' tensors on other threads. Copy the context so that
        # they use the same kernel backend.
        self._context = copy_context()
        for index, param in enumerate(self._params):
            param.register_hook(partial(self._arrive, index))  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Remove the hooks from the parameters. May be called more than once."""
        for param in self._params:
            # Do not rely on handles: an interrupt may occur before `register_hook` returns one.
            hooks = param._backward_hooks or {}
            for key, hook in [*hooks.items()]:
                if isinstance(hook, partial) and hook.func == self._arrive:
                    del hooks[key]

    def finish(self, derivatives: Sequence[Tensor | None]) -> None:
        """Send the remaining buckets and wait for the sum."""
        self._arrived.update(enumerate(derivatives))
        self._send_complete()
        for pending in self._sent:
            pending.wait()

    def _arrive(self, index: int, derivative: Tensor) -> None:
        self._arrived[index] = derivative
        self._context.run(self._send_complete)

    @torch.no_grad()
    def _send_complete(self) -> None:
        while len(self._sent) < len(self._buckets):
            bucket = self._buckets[len(self._sent)]
            if any(index not in self._arrived for index in bucket):
                return
            shapes = self._layout.shapes[bucket.start : bucket.stop]
            size = sum(self._layout.sizes[bucket.start : bucket.stop])
            where = slice(self._stop - size, self._stop)
            tensors = [self._arrived.pop(index) for index in bucket]
            if self._added is not None:
                known = [*self._added[bucket.start : bucket.stop]]
                known += [None] * (len(tensors) - len(known))
                tensors = sums(tensors, known, self._out.dtype)
            self._sent.append(self._send(tensors, shapes, where))
            self._stop = where.start

    def _send(
        self, tensors: Sequence[Tensor | None], shapes: Sequence[torch.Size], where: slice
    ) -> Pending:
        """Start to sum the tensors of a bucket into ``out[where]``."""
        gather(
            tensors,
            shapes,
            self._out[where],
            None if self._scale is None else self._scale[where],
        )
        return self._collectives.sum_(self._out[where], self._phase)
