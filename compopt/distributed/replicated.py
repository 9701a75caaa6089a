"""Data parallel: each process has whole vectors, and its own part of the batch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from compopt._checks import check_positive
from compopt._flat import FlatLayout
from compopt._warn import warn
from compopt.distributed.buckets import OverlappedSum
from compopt.distributed.collectives import Collectives
from compopt.distributed.comparison import compare
from compopt.distributed.meeting import Act, MakeTerms, Notice
from compopt.distributed.placement import Pass, Placement, add_to


class Replicated(Placement):
    r"""Whole vectors on every process; gradients and products are means over the processes.

    The loss of a step is the mean of the processes' losses. Its gradients and its mixed block are
    the means of theirs, so one all-reduce makes a local gradient or half product that of the whole
    batch. After it the vectors are equal on all ranks to the bit, and so is everything that is
    computed from them: step sizes, the scalars of the solver, moments, parameters. What is decided
    on the host (whether to stop, whether to take the step) is what the first rank decides, so that
    devices that round differently cannot wait for each other forever.

    Collectives of a zero-sum step with n and m parameters, p mixed products and l looks of the
    solver at its residual, in vectors with b bytes per entry:

    ===============  ===========================================  ================
    what             bytes                                        number
    ===============  ===========================================  ================
    roll call        40                                           1 (0 capturable)
    gradients, loss  b (n + m + 1)                                one per bucket
    half product     b n or b m, of the player it is for          one per bucket
    look             16                                           l
    whether to move  24                                           1 (0 capturable)
    ===============  ===========================================  ================

    A vector of up to ``bucket_mb`` is one bucket. A look is made before each iteration and after
    the last one that is not predicted; none with a fixed count. ``step()`` after ``backward(loss)``
    has a roll call of its own; ``backward(loss, scaler=...)`` averages the loss in one more message
    of b bytes. In general-sum games each loss has a pass of its own, with messages of b (n + 1) and
    b (m + 1) bytes.

    In the roll call each rank tells which call it is about to make, how many it has made, and hash
    values of its hyperparameters, its settings and the set of trained parameters. At the first
    step, and at the first one after ``load_state_dict``, hash values of the bits of parameters and
    state are added. It is read on the host, as a look is. Where ranks differ, all of them raise
    before anything is sent that could have another size or be averaged with something else.

    What overlaps: a bucket of the gradients, or of a half product, is sent as soon as the backward
    pass has come to its parameters, while the pass goes on with earlier layers. The vector work of
    the solver needs the whole product, so nothing overlaps with that.

    Args:
        process_group: of ``torch.distributed``, any backend that has the device of the parameters:
            gloo on CPUs, NCCL on CUDA devices.
        bucket_mb: size in MiB from which on a bucket is sent.

    Example:
        >>> torch.distributed.init_process_group("nccl")  # doctest: +SKIP
        >>> group = Replicated(torch.distributed.group.WORLD, bucket_mb=50)  # doctest: +SKIP
        >>> optimizer = ACGD(G.parameters(), D.parameters(), process_group=group)  # doctest: +SKIP
    """

    is_shared = True
    _reduction: type[OverlappedSum] = OverlappedSum

    def __init__(self, process_group: "dist.ProcessGroup", bucket_mb: float = 25.0) -> None:
        check_positive("bucket_mb", bucket_mb)
        if not isinstance(process_group, dist.ProcessGroup):
            raise TypeError(
                "`process_group` must be a process group of torch.distributed that this process "
                f"is a member of, got {process_group!r}. Call "
                "`torch.distributed.init_process_group(...)` first, then pass "
                "`torch.distributed.group.WORLD`."
            )
        self._collectives: Collectives | None = Collectives(process_group)
        self.bucket_bytes = int(bucket_mb * 2**20)

    @property
    def collectives(self) -> Collectives:
        """The operations of the group."""
        if self._collectives is None:
            raise RuntimeError(
                "A process group is not stored with an optimizer, and this one was loaded from a "
                "pickle. Set `optimizer.process_group = torch.distributed.group.WORLD`."
            )
        return self._collectives

    @property
    def num_collectives(self) -> int:  # type: ignore[override]
        """Collective operations so far."""
        return self.collectives.num_calls

    @property
    def num_bytes(self) -> int:  # type: ignore[override]
        """Bytes that this process has put into them so far."""
        return self.collectives.num_bytes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_collectives": None}

    def together(self, *orderly: type[Exception]) -> AbstractContextManager[None]:
        """Return a context in which an error in the middle is the last thing that is exchanged."""
        return self.collectives.until_the_end(*orderly)

    def meet(self, act: Act, count: int, terms: MakeTerms | None, device: torch.device) -> None:
        """Begin what processes do together, once it is known that all have come, and alike.

        Raises:
            CollectiveError: see :meth:`~compopt.distributed.collectives.Collectives.meet`.
            ValueError: on all processes, if their ``terms`` differ.

        Cost: one gathering of 40 bytes; nothing where ``terms`` is None.
        """
        if terms is None:
            self.collectives.check()
        else:
            compare(self.collectives, act, count, terms(), device)
        self.collectives.begin(str(Notice(act, count)))

    def settings(self) -> dict[str, str]:
        """Return what decides how many messages there are and of which size."""
        mine = f"{type(self).__name__}, buckets of {self.bucket_bytes} bytes"
        return {"`process_group`": mine}

    def message(self, layouts: Sequence[FlatLayout], scalars: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of vectors and of the means of ``scalars``, joined."""
        single = (torch.Size([1]),) * len(scalars), [scalar.dtype for scalar in scalars]
        numbers = FlatLayout.with_shapes(*single, layouts[0].device)
        return super().message([*layouts, numbers], ())

    def gather(
        self, source: Pass, out: Tensor, *, base: Any = None, factor: float = 1.0, **terms: Any
    ) -> Tensor | None:
        """As :meth:`Placement.gather`. Each bucket is sent while the backward pass goes on."""
        extra = [self._for_all(scalar) for scalar in terms.pop("scalars", ())]
        running = self._reduction(
            self.collectives, source, out, self.bucket_bytes, extra=extra, **terms
        )
        try:
            with running:
                derivatives = source.derive()
        finally:
            # An interrupt can come on the way into a `with` or out of it.
            running.release()
        running.finish(derivatives)
        return add_to(base, out.mul_(factor / self.collectives.size), out)

    def _for_all(self, scalar: Tensor) -> Tensor:
        """Return a number in the form in which it is summed for all processes."""
        return scalar.reshape(1)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes of a tensor. One all-reduce."""
        mean = value.clone()
        self.collectives.sum_(mean, "a mean").wait()
        return mean.mul_(1 / self.collectives.size)

    def agree(self, flags: Any) -> Any:
        """Return the first rank's flags, as integers. One broadcast of 8 bytes per flag."""
        return self.collectives.agree(torch.as_tensor(flags)).tolist()


class UnsharedWarning(UserWarning):
    """One of several processes steps by itself."""


def warn_if_unshared(who: str, remedy: str) -> None:
    """Warn if there are other processes, whose steps those of ``who`` will not be."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        warn(
            f"One of {dist.get_world_size()} processes has {who}, which averages nothing with the "
            "others, even if modules are wrapped in DistributedDataParallel: they drift apart. "
            f"{remedy}",
            UnsharedWarning,
        )


def placement_of(process_group: "dist.ProcessGroup | Placement | None") -> Placement:
    """Return where the vectors of an optimizer with this ``process_group`` live."""
    if process_group is None:
        warn_if_unshared(
            "an optimizer without a `process_group`",
            "Pass `torch.distributed.group.WORLD`, or `compopt.distributed.Placement()` if each "
            "process is to train by itself.",
        )
        return Placement()
    if isinstance(process_group, Placement):
        return process_group
    return Replicated(process_group)
