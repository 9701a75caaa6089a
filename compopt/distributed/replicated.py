"""Data parallelism: each process has whole vectors and its own part of the batch."""

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

    The loss of a step is the mean of the processes' losses, and so are its gradients and mixed
    derivatives. One all-reduce turns a local gradient or half product into that of the whole batch.
    Afterwards the vectors are bitwise equal on all ranks, and so is everything that is computed
    from them: step sizes, the solver's scalars, moments, parameters. Decisions on the host (whether
    to stop, whether to take the step) are those of the first rank. Otherwise, devices that round
    differently could wait for each other forever.

    Collectives of a zero-sum step with n and m parameters and l looks of the solver at its
    residual, in vectors with b bytes per entry:

    ===============  ===========================================  ================
    what             bytes                                        number
    ===============  ===========================================  ================
    roll call        40                                           1 (0 capturable)
    gradients, loss  b (n + m + 1)                                one per bucket
    half product     b n or b m, of the player it is for          one per bucket
    look             16                                           l
    whether to move  24                                           1 (0 capturable)
    ===============  ===========================================  ================

    A vector of up to ``bucket_mb`` is one bucket. The solver looks before each iteration and after
    the last one unless that is predicted; never with a fixed count. ``step()`` after
    ``backward(loss)`` has its own roll call. ``backward(loss, scaler=...)`` averages the loss in
    one more message of b bytes. In general-sum games each loss has its own pass, with messages of
    b (n + 1) and b (m + 1) bytes.

    In the roll call, each rank sends which call it is about to make, how many it has made, and hash
    values of its hyperparameters, its settings and the set of trained parameters. The first step,
    and the first one after ``load_state_dict``, add hash values of the bits of parameters and
    state. The host reads the result, as it reads a look. If ranks differ, all of them raise before
    they send messages that differ in size or must not be averaged.

    Overlap: a bucket of the gradients or of a half product is sent once the backward pass has
    reached all of its parameters, while the pass continues with earlier layers. The vector
    operations of the solver need the whole product, so they do not overlap.

    Args:
        process_group: process group of ``torch.distributed`` with any backend that supports the
            device of the parameters: gloo on CPUs, NCCL on CUDA devices.
        bucket_mb: size in MiB at which a bucket is sent.

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
        """The collective operations of the group."""
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
        """Return a context in which an error during an exchange prevents all later exchanges."""
        return self.collectives.until_the_end(*orderly)

    def meet(self, act: Act, count: int, terms: MakeTerms | None, device: torch.device) -> None:
        """Start an exchange after checking that all processes are at the same one.

        Raises:
            CollectiveError: see :meth:`~compopt.distributed.collectives.Collectives.meet`.
            ValueError: on all processes, if their ``terms`` differ.

        Cost: one all-gather of 40 bytes; nothing if ``terms`` is None.
        """
        if terms is None:
            self.collectives.check()
        else:
            compare(self.collectives, act, count, terms(), device)
        self.collectives.begin(str(Notice(act, count)))

    def settings(self) -> dict[str, str]:
        """Return the settings that determine the number and size of messages."""
        mine = f"{type(self).__name__}, buckets of {self.bucket_bytes} bytes"
        return {"`process_group`": mine}

    def message(self, layouts: Sequence[FlatLayout], scalars: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of vectors followed by the means of ``scalars``."""
        single = (torch.Size([1]),) * len(scalars), [scalar.dtype for scalar in scalars]
        numbers = FlatLayout.with_shapes(*single, layouts[0].device)
        return super().message([*layouts, numbers], ())

    def gather(
        self, source: Pass, out: Tensor, *, base: Any = None, factor: float = 1.0, **terms: Any
    ) -> Tensor | None:
        """As :meth:`Placement.gather`. Buckets are sent during the backward pass."""
        extra = [self._for_all(scalar) for scalar in terms.pop("scalars", ())]
        running = self._reduction(
            self.collectives, source, out, self.bucket_bytes, extra=extra, **terms
        )
        try:
            with running:
                derivatives = source.derive()
        finally:
            # An interrupt may occur on entering or leaving the `with` block.
            running.release()
        running.finish(derivatives)
        return add_to(base, out.mul_(factor / self.collectives.size), out)

    def _for_all(self, scalar: Tensor) -> Tensor:
        """Return a scalar in the shape in which it is sent."""
        return scalar.reshape(1)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over processes. One all-reduce."""
        mean = value.clone()
        self.collectives.sum_(mean, "a mean").wait()
        return mean.mul_(1 / self.collectives.size)

    def agree(self, flags: Any) -> Any:
        """Return the first rank's flags, as integers. One broadcast of 8 bytes per flag."""
        return self.collectives.agree(torch.as_tensor(flags)).tolist()


class UnsharedWarning(UserWarning):
    """One of several processes steps without the others."""


def warn_if_unshared(who: str, remedy: str) -> None:
    """Warn if there are other processes with which ``who`` will not communicate."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        warn(
            f"One of {dist.get_world_size()} processes has {who}, which averages nothing with the "
            "others, even if modules are wrapped in DistributedDataParallel: they drift apart. "
            f"{remedy}",
            UnsharedWarning,
        )


def placement_of(process_group: "dist.ProcessGroup | Placement | None") -> Placement:
    """Return the placement for an optimizer with this ``process_group``."""
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
