"""Collective operations that count calls and bytes and raise errors with rank and phase."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist

from compopt.distributed.meeting import Notice
from compopt.distributed.record import WAITED, record_of


class CollectiveError(RuntimeError):
    """A collective failed: a process has died, lags behind, or makes a different call."""


class Pending:
    """A collective operation in progress."""

    def __init__(
        self, work: "dist.Work | None", fail: Callable[[str, Exception], Exception], phase: str
    ):
        self._work = work
        self._fail = fail
        self._phase = phase

    def wait(self) -> None:
        """Wait for the result; on an accelerator, make the current stream wait.

        Raises:
            CollectiveError: if the operation failed or timed out.
        """
        if self._work is not None:
            try:
                self._work.wait()
            except RuntimeError as error:
                raise self._fail(self._phase, error) from error


class Collectives:
    """Collective operations of a process group.

    Args:
        group: the process group.

    Attributes:
        rank: rank of this process in the group.
        size: number of processes in the group.
        num_calls: number of collective operations so far.
        num_bytes: bytes that this process has passed to them so far: its operand of a reduction,
            the message of a broadcast, its part of an all-gather.
    """

    def __init__(self, group: "dist.ProcessGroup") -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.num_calls = 0
        self.num_bytes = 0
        self._record = record_of(group)

    def meet(self, notice: Notice, device: torch.device) -> list[Notice]:
        """Exchange notices: each process announces what it is about to do. Return all of them.

        Every exchange that can make processes wait for each other starts with this message. It
        always has the same kind and size, so processes that are at different places notice at once.

        Args:
            notice: notice of this process.
            device: a device that the group's backend supports.

        Raises:
            CollectiveError: on all processes, if they are about to do different things; on this
                one, if an earlier exchange was interrupted.

        Cost: one all-gather of 40 bytes, which is read on the host.
        """
        self.check()
        own = torch.tensor(notice.numbers(), dtype=torch.int64, device=device)
        everyone = torch.zeros(self.size * len(own), dtype=torch.int64, device=device)
        self.gather(own, everyone, f"the beginning of {notice}")
        self._record.num_meetings += 1
        notices = [Notice.of(numbers) for numbers in everyone.view(self.size, -1).tolist()]
        for rank, other in enumerate(notices):
            if not notice.agrees(other):
                raise CollectiveError(
                    f"The ranks are not at the same place: rank {self.rank} is at {notice}, rank "
                    f"{rank} at {other}. One of them has skipped or repeated a step, or loaded a "
                    "state dict on its own, or went on after an error. Let all ranks "
                    "make the same calls in the same order. To go on from here, load the last "
                    "checkpoint on all of them: `load_state_dict` starts the count again."
                )
        return notices

    def check(self) -> None:
        """Raise if an earlier exchange of this process with the group was interrupted."""
        if self._record.end is not None:
            raise CollectiveError(self._record.end)

    def begin(self, what: str) -> None:
        """Record that an exchange of several messages has begun."""
        self._record.under_way = what

    @contextmanager
    def until_the_end(self, *orderly: type[Exception]) -> Iterator[None]:
        """Return a context in which an error during an exchange prevents all later exchanges.

        The other processes do not know of the error and wait for messages that this process does
        not send. An error before the exchange begins only leaves a note for them.

        Args:
            orderly: errors that all processes raise alike, which do not prevent later exchanges.
        """
        record, before = self._record, self._record.num_meetings
        expected: tuple[type[Exception], ...] = (CollectiveError, *orderly)
        try:
            yield
        except expected:
            raise
        except BaseException as error:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            if record.under_way is not None:
                if self.size > 1:
                    record.end = self._end_of(f"{record.under_way} ended with {what}")
                record.leave(f"{what} (in {record.under_way})")
            elif record.num_meetings == before:
                # After a meeting, all processes raise the same error, so no note is needed.
                record.leave(f"{what} (before an exchange)")
            raise
        finally:
            record.under_way = None

    def texts(self, own: bytes, device: torch.device) -> list[bytes]:
        """Return the texts of all processes. They must have equal length."""
        part = torch.tensor(list(own), dtype=torch.uint8, device=device)
        whole = torch.zeros(self.size * len(part), dtype=torch.uint8, device=device)
        self.gather(part, whole, "what the ranks do")
        return [bytes(row) for row in whole.view(self.size, -1).tolist()]

    def sum_(self, tensor: Tensor, phase: str) -> Pending:
        """Start an in-place all-reduce of ``tensor``. The sum is bitwise equal on all processes."""
        return self._begin(
            phase,
            tensor,
            lambda: dist.all_reduce(tensor, group=self.group, async_op=True),
        )

    def first_(self, tensor: Tensor, phase: str) -> None:
        """Broadcast ``tensor`` from the first process of the group, in place."""
        self._begin(
            phase,
            tensor,
            lambda: dist.broadcast(
                tensor, dist.get_global_rank(self.group, 0), group=self.group, async_op=True
            ),
        ).wait()

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags of the first process of the group, as integers."""
        agreed = flags.to(torch.int64, copy=True)
        self.first_(agreed, "the decision whether to go on")
        return agreed

    def gather(self, part: Tensor, whole: Tensor, phase: str) -> None:
        """All-gather the parts [k] of all processes into ``whole`` [size * k], ordered by rank."""
        self._begin(
            phase,
            part,
            lambda: _named("all_gather_single", "all_gather_into_tensor")(
                whole, part, group=self.group, async_op=True
            ),
        ).wait()

    def scatter_sum(self, whole: Tensor, part: Tensor, phase: str) -> Pending:
        """Start a reduce-scatter of ``whole`` [size * k] into this process's ``part`` [k]."""
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
            except (RuntimeError, ValueError) as error:
                raise self._fail(phase, error) from error
        return Pending(work, self._fail, phase)

    def _fail(self, phase: str, error: Exception) -> CollectiveError:
        """Return the error to raise, and prevent later exchanges with the group."""
        if _is_destroyed(self.group):
            return CollectiveError(
                f"The process group of rank {self.rank} was destroyed before the exchange of "
                f"{phase}. Take no step after `torch.distributed.destroy_process_group()`. To go "
                "on, call `torch.distributed.init_process_group(...)` on all ranks and set "
                "`optimizer.process_group = torch.distributed.group.WORLD`."
            )
        self._record.end = self._end_of(f"the exchange of {phase} failed")
        self._record.leave(f"{WAITED} {phase}")
        return CollectiveError(
            f"Rank {self.rank} of {self.size} failed in the exchange of {phase}. "
            f"{self._record.who_is_missing()} Check the output of the others, and let all ranks "
            "take equally many steps (`compopt.distributed.while_all_have`). The backend said: "
            f"{error}"
        )

    def _end_of(self, reason: str) -> str:
        return (
            f"Rank {self.rank} has left its process group: {reason}. The "
            "other ranks may still be waiting for the rest of that exchange, and would take any "
            "other message for it. Start all processes again from the last checkpoint, or set "
            "`optimizer.process_group = torch.distributed.new_group()` on all ranks and load it "
            "there."
        )


def _is_destroyed(group: "dist.ProcessGroup") -> bool:
    try:
        dist.get_rank(group)
    except ValueError:
        return True
    return False


def _named(name: str, older_name: str) -> "Callable[..., dist.Work | None]":
    """Return an operation that has another name in older releases of torch."""
    operation: Callable[..., dist.Work | None] = getattr(dist, name, None) or getattr(
        dist, older_name
    )
    return operation
