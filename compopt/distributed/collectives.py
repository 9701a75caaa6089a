"""Collective operations of a process group, counted, with errors that name rank and phase."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributed as dist


class CollectiveError(RuntimeError):
    """A collective operation failed, as it does when another process has died or lags behind."""


class Pending:
    """A collective operation under way."""

    def __init__(
        self, work: "dist.Work | None", explain: Callable[[str, Exception], str], phase: str
    ):
        self._work = work
        self._explain = explain
        self._phase = phase

    def wait(self) -> None:
        """Wait for the result; on an accelerator, let the current stream wait.

        Raises:
            CollectiveError: if the operation failed or timed out.
        """
        if self._work is not None:
            try:
                self._work.wait()
            except RuntimeError as error:
                raise CollectiveError(self._explain(self._phase, error)) from error


class Collectives:
    """What the processes of a group do together.

    Args:
        group: the process group.

    Attributes:
        rank: of this process in the group.
        size: processes in the group.
        num_calls: collective operations so far.
        num_bytes: bytes that this process has put into them so far: of a reduction, its own
            operand; of a broadcast, the message; of a gathering, its own part.
    """

    def __init__(self, group: "dist.ProcessGroup") -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.num_calls = 0
        self.num_bytes = 0

    def sum_(self, tensor: Tensor, phase: str) -> Pending:
        """Begin to replace ``tensor`` by its sum over the processes, equal on all to the bit."""
        return self._begin(
            phase,
            tensor,
            lambda: dist.all_reduce(tensor, group=self.group, async_op=True),
        )

    def first_(self, tensor: Tensor, phase: str) -> None:
        """Replace ``tensor`` by that of the first process of the group."""
        source = dist.get_global_rank(self.group, 0)
        self._begin(
            phase,
            tensor,
            lambda: dist.broadcast(tensor, source, group=self.group, async_op=True),
        ).wait()

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags of the first process of the group, as integers."""
        agreed = flags.to(torch.int64, copy=True)
        self.first_(agreed, "the decision whether to go on")
        return agreed

    def gather(self, part: Tensor, whole: Tensor, phase: str) -> None:
        """Write the parts [k] of all processes to ``whole`` [size * k], in the order of ranks."""
        self._begin(
            phase,
            part,
            lambda: _named("all_gather_single", "all_gather_into_tensor")(
                whole, part, group=self.group, async_op=True
            ),
        ).wait()

    def scatter_sum(self, whole: Tensor, part: Tensor, phase: str) -> Pending:
        """Begin to write this process's part [k] of the sum of ``whole`` [size * k] to ``part``."""
        return self._begin(
            phase,
            whole,
            lambda: _named("reduce_scatter_single", "reduce_scatter_tensor")(
                part, whole, group=self.group, async_op=True
            ),
        )

    def _begin(
        self, phase: str, operand: Tensor, operation: "Callable[[], dist.Work | None]"
    ) -> Pending:
        self.num_calls += 1
        self.num_bytes += operand.numel() * operand.element_size()
        with torch.no_grad():
            try:
                work = operation()
            except RuntimeError as error:
                raise CollectiveError(self._explain(phase, error)) from error
        return Pending(work, self._explain, phase)

    def _explain(self, phase: str, error: Exception) -> str:
        return (
            f"Rank {self.rank} of {self.size} failed in the exchange of {phase}. Another process "
            "has died, raised an error, or did not come to this step before the time-out of the "
            "process group: look at its output, and let all ranks take equally many steps "
            f"(`compopt.distributed.while_all_have`). The backend said: {error}"
        )


def _named(name: str, older_name: str) -> "Callable[..., dist.Work | None]":
    """Return an operation that older torch has under another name."""
    operation: Callable[..., dist.Work | None] = getattr(dist, name, None) or getattr(
        dist, older_name
    )
    return operation
