"""What a process knows of its exchanges with a group, and leaves for the others to read."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import distributed as dist

PATIENCE_S = 2.0
"""Seconds for which a process whose exchange has failed waits for the notes of the others."""


class Store(Protocol):
    """A store of ``torch.distributed``."""

    def set(self, key: str, value: str, /) -> None:
        """Write."""

    def get(self, key: str, /) -> bytes:
        """Read."""

    def check(self, keys: list[str], /) -> bool:
        """Return whether there is something to read."""


class GroupRecord:
    """The exchanges of this process with a group, by all of its users.

    Attributes:
        num_meetings: exchanges begun with a comparison of what all are about to do; equal on all
            processes as long as they act alike.
        under_way: what has begun and not ended, None in between.
        end: why no more exchanges are possible, None if they are.
    """

    def __init__(self, group: "dist.ProcessGroup") -> None:
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.num_meetings = 0
        self.under_way: str | None = None
        self.end: str | None = None
        # Older torch has no such method.
        get_store = getattr(group, "get_group_store", None)
        self._store: Store | None = None if get_store is None else get_store()

    def leave(self, note: str) -> None:
        """Leave a note in the store, which others read when an exchange with this one fails."""
        if self._store is None or self.size == 1:
            return
        try:
            self._store.set(_key(self.rank), f"{self.num_meetings} {note}")
        except RuntimeError:
            # The store can have gone with the process that kept it. There is an error under way
            # that says more than this one.
            self._store = None

    def notes(self) -> dict[int, str]:
        """Return the notes of the others about this exchange, by rank; wait for them a while."""
        found: dict[int, str] = {}
        missing = [rank for rank in range(self.size) if rank != self.rank]
        deadline, pause = time.monotonic() + PATIENCE_S, 0.02
        while missing and self._store is not None:
            try:
                read = {rank: self._read(self._store, rank) for rank in missing}
            except RuntimeError:
                # Likewise: the error under way is raised without the notes of others.
                self._store = None
                break
            found.update({rank: note for rank, note in read.items() if note is not None})
            missing = [rank for rank in missing if rank not in found]
            if time.monotonic() > deadline:
                break
            time.sleep(pause)
            # Many processes may be asking.
            pause *= 2
        return dict(sorted(found.items()))

    def _read(self, store: Store, rank: int) -> str | None:
        if not store.check([_key(rank)]):
            return None
        meeting, _, note = store.get(_key(rank)).decode().partition(" ")
        # An older one is about an error that all have recovered from.
        return note if int(meeting) >= self.num_meetings else None

    def who_is_missing(self) -> str:
        """Say which of the others failed or waited as well, and of which there is no word."""
        notes = self.notes()
        silent = [rank for rank in range(self.size) if rank != self.rank and rank not in notes]
        sentences = [f"Rank {rank} reports: {note}." for rank, note in _first(notes)]
        if self._store is None:
            sentences.append("The store of the group, which knows of the others, does not answer.")
        elif silent:
            sentences.append(
                f"No word from {ranks_named(silent)}: dead, done with its loop, or busy with "
                "something else."
            )
        return " ".join(sentences)


def record_of(group: "dist.ProcessGroup") -> GroupRecord:
    """Return this process's record of a group, one for all who use it."""
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
"""Ranks that a message names."""


def _first(notes: Mapping[int, str]) -> list[tuple[int, str]]:
    # Who failed says more than who waited.
    ordered = sorted(notes.items(), key=lambda item: item[1].startswith(WAITED))
    return ordered[:MOST]


WAITED = "waited in vain for"
"""How the note of a process begins that did nothing wrong."""


def _key(rank: int) -> str:
    return f"compopt/{rank}"
