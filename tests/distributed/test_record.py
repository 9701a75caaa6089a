"""What a process says of the others when an exchange with them has failed."""

from types import SimpleNamespace

import pytest
from torch import distributed as dist

from compopt.distributed import record
from compopt.distributed.record import GroupRecord, ranks_named

SIZE = 9


@pytest.fixture
def records(monkeypatch):
    """Records of processes that share a store."""
    monkeypatch.setattr(record, "PATIENCE_S", 0.0)
    store = dist.HashStore()
    made = []
    for rank in range(SIZE):
        monkeypatch.setattr(dist, "get_rank", lambda _, rank=rank: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda _: SIZE)
        made.append(GroupRecord(SimpleNamespace(get_group_store=lambda: store)))
    return made


def test_those_who_failed_come_first(records):
    for rank in (0, 1, 2, 3, 4, 5, 7):
        records[rank].leave("waited in vain for the gradients")
    records[6].leave("ValueError: bad loss (before an exchange)")
    said = records[0].who_is_missing()
    assert said.startswith("Rank 6 reports: ValueError: bad loss (before an exchange). Rank 1 rep")
    assert said.count("reports") == 4
    assert "No word from rank 8: dead" in said


def test_old_notes_are_not_read(records):
    records[1].leave("ValueError: bad loss (before an exchange)")
    records[0].num_meetings = 1
    assert "bad loss" not in records[0].who_is_missing()


def test_one_note_may_come_late(records, monkeypatch):
    monkeypatch.setattr(record, "PATIENCE_S", 5.0)
    for rank in range(2, SIZE):
        records[rank].leave("waited in vain for the loss")
    monkeypatch.setattr(
        "time.sleep", lambda _: records[1].leave("waited in vain for the gradients")
    )
    assert records[0].notes()[1] == "waited in vain for the gradients"


def fail(*_):
    raise dist.DistNetworkError("connection reset")


GONE = SimpleNamespace(set=fail, get=fail, check=fail)
"""A store whose process has died."""


def test_store_that_has_gone(records):
    records[0]._store = GONE
    assert "does not answer" in records[0].who_is_missing()
    records[1]._store = GONE
    records[1].leave("waited in vain for the loss")
    assert "does not answer" in records[1].who_is_missing()


def test_ranks_are_listed_in_words():
    assert ranks_named([1]) == "rank 1"
    assert ranks_named([1, 2]) == "ranks 1 and 2"
    assert ranks_named(range(9)) == "ranks 0, 1, 2, 3 and 5 more"
