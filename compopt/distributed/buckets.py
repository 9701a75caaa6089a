"""Sums over processes that begin while a backward pass still runs."""

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
    """Return which tensors travel together, in the order in which they are sent.

    A backward pass comes to the last tensors first. Going backward, a bucket takes tensors until
    it has at least ``bucket_bytes``.

    Args:
        sizes: number of elements of each tensor.
        itemsize: bytes of an element.
        bucket_bytes: size from which on a bucket is sent.

    Returns:
        Ranges of indices of ``sizes``, each a bucket, that together hold every index once.

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
    """The sum over processes of what one backward pass gives, sent bucket by bucket.

    A context for the pass. Hooks on the tensors that are differentiated by see their derivatives as
    they come; a bucket whose tensors are all there is written to its slice of ``out`` and sent,
    while the pass goes on. All processes send their buckets in one order, whatever the order in
    which their own graphs come to them; what has not come by the end of the pass counts as zero.

    Args:
        collectives: of the process group.
        source: whose pass it is. Its layout is that of what this process keeps of each tensor,
            followed by ``extra``.
        out: [size of the layout] where the sum is written.
        bucket_bytes: see :func:`plan_buckets`.
        scale: as ``out``, multiplies this process's derivatives.
        added: derivatives of this process, known beforehand, that are added to them.
        extra: further tensors to sum, known beforehand.
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
        # Hooks of accelerators' tensors are called by other threads, which would not know the
        # backend that was chosen for the kernels.
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
        """Take the hooks off the parameters; once more does no harm."""
        for param in self._params:
            # Not by their handles: an interrupt may come between a hook and its handle.
            hooks = param._backward_hooks or {}
            for key, hook in [*hooks.items()]:
                if isinstance(hook, partial) and hook.func == self._arrive:
                    del hooks[key]

    def finish(self, derivatives: Sequence[Tensor | None]) -> None:
        """Send what is left of the pass's result, and wait for the sum."""
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
        """Begin to sum the tensors of a bucket into ``out[where]``."""
        gather(
            tensors,
            shapes,
            self._out[where],
            None if self._scale is None else self._scale[where],
        )
        return self._collectives.sum_(self._out[where], self._phase)
