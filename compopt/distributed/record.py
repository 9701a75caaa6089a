"""Record of a process's exchanges with a group, and notes about errors for the others."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import distributed as dist

PATIENCE_S = 2.0
"""Seconds that a process waits for notes of other ranks after its exchange has failed."""


class Store(Protocol):
    """A store of ``torch.distributed``."""

    def set(self, key: str, value: str, /) -> None:
        """Write."""

    def get(self, key: str, /) -> bytes:
        """Read."""

    def check(self, keys: list[str], /) -> bool:
        """Return True if all ``keys`` exist."""


class GroupRecord:
    """Record of this process's exchanges with a group, shared by all users of the group.

    Attributes:
        num_meetings: number of exchanges that started with a comparison of notices; equal on all
            processes as long as they make the same calls.
        under_way: name of the exchange in progress, or None.
        end: reason why no more exchanges are possible, or None.
    """

    def __init__(self, group: "dist.ProcessGroup") -> None:
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.num_meetings = 0
        self.under_way: str | None = None
        self.end: str | None = None
        # Older releases of torch do not have this method.
        get_store = getattr(group, "get_group_store", None)
        self._store: Store | None = None if get_store is None else get_store()

    def leave(self, note: str) -> None:
        """Write a note to the store. Other ranks read it when an exchange with this one fails."""
        if self._store is None or self.size == 1:
            return
        try:
            self._store.set(_key(self.rank), f"{self.num_meetings} {note}")
        except RuntimeError:
            # The process that hosts the store may have died. Do not hide the error that is being
            # raised, which says more.
            self._store = None

    def notes(self) -> dict[int, str]:
        """Wait for notes of the other ranks about this exchange; return those found, by rank."""
        found: dict[int, str] = {}
        missing = [rank for rank in range(self.size) if rank != self.rank]
        deadline, pause = time.monotonic() + PATIENCE_S, 0.02
        while missing and self._store is not None:
            try:
                read = {rank: self._read(self._store, rank) for rank in missing}
            except RuntimeError:
                # As in `leave`: raise the original error, without notes of other ranks.
                self._store = None
                break
            found.update({rank: note for rank, note in read.items() if note is not None})
            missing = [rank for rank in missing if rank not in found]
            if time.monotonic() > deadline:
                break
            time.sleep(pause)
            # Back off: many processes may be polling.
            pause *= 2
        return dict(sorted(found.items()))

    def _read(self, store: Store, rank: int) -> str | None:
        if not store.check([_key(rank)]):
            return None
        meeting, _, note = store.get(_key(rank)).decode().partition(" ")
        # Ignore older notes: they are about errors that all ranks have recovered from.
        return note if int(meeting) >= self.num_meetings else None

    def who_is_missing(self) -> str:
        """Return text on which ranks failed or waited as well, and which have left no note."""
        notes = self.notes()
        silent = [rank for rank in range(self.size) if rank != self.rank and rank not in notes]
        sentences = [f"Rank {rank} reports: {note}." for rank, note in _first(notes)]
        if self._store is None:
            sentences.append("The store of the process group does not answer.")
        elif silent:
            sentences.append(
                f"No word from {ranks_named(silent)}: dead, done with its loop, or busy with "
                "something else."
            )
        return " ".join(sentences)


def record_of(group: "dist.ProcessGroup") -> GroupRecord:
    """Return this process's record of a group. All users of the group share it."""
    record = _RECORDS.get(group)
    if record is None:
        record = _RECORDS[group] = GroupRecord(group)
    return record


_RECORDS: "WeakKeyDictionary[dist.ProcessGroup, GroupRecord]" = WeakKeyDictionary()


def ranks_named(ranks: Sequence[int]) -> str:
    """Return "rank 1", "ranks 1 and 2" and so on."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    names = [str(rank) for rank in ranks]
    if len(names) > MOST:
        names = [*names[:MOST], f"{len(names) - MOST} more"]
    return f"ranks {', '.join(names[:-1])} and {names[-1]}"


MOST = 4
"""Maximum number of ranks that a message names."""


def _first(notes: Mapping[int, str]) -> list[tuple[int, str]]:
    # A rank that failed says more than one that waited.
    ordered = sorted(notes.items(), key=lambda item: item[1].startswith(WAITED))
    return ordered[:MOST]


WAITED = "waited in vain for"
"""First words of the note of a process that waited and did nothing wrong."""


def _key(rank: int) -> str:
    return f"compopt/{rank}"
