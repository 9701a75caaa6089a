"""Wherever one rank is interrupted, each holds the step whole or not at all, and none goes astray.

One of two ranks raises at a torch operation or a line of the package. What each then holds is what
it was before the step, or what it is after it. If they are not at the same place, no further step
is taken by any.
"""

from collections import Counter

import pytest
import shared_interruptions
from ranks import run_ranks
from shared_interruptions import PLACEMENTS, PLACES
from shared_runs import of_ranks


def judge(ranks, name, placement, place):
    """Check the outcomes of all places; return how often the ranks went on or were refused."""
    outcomes = [result[placement, place] for result in of_ranks(ranks, name)]
    ends = Counter()
    for other, odd in zip(*outcomes, strict=True):
        assert {held for _, held, _, _ in (other, odd)} <= {"before", "after"}, (other, odd)
        assert other[0] in ("taken", "refused"), other
        # It may raise in what frees memory, where no exception gets out.
        assert odd[0] in ("interrupted", "taken"), odd
        # Who has been refused, or has been interrupted in the middle, is refused again.
        assert other[0] == "taken" or other[2] == "refused", other
        assert all(is_right for _, _, _, is_right in (other, odd)), (other, odd)
        ends[odd[1], odd[2]] += 1
    return ends


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    return run_ranks([shared_interruptions.some_interruptions], 2, folder)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_some_places(sample, placement, place):
    ends = judge(sample, "some_interruptions", placement, place)
    assert ends["before", "refused"] >= 2


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    return run_ranks([shared_interruptions.all_interruptions], 2, folder, limit_s=3 * 3600)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_place(every, placement, place):
    ends = judge(every, "all_interruptions", placement, place)
    assert ends["before", "refused"] > 100
    assert sum(count for (held, _), count in ends.items() if held == "after") > 0
