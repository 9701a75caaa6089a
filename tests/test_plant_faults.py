"""The faults that are planted can still be planted; `python tests/plant_faults.py` does it."""

import pytest
from compiled_faults import COMPILED_FAULTS
from faults import FAULTS
from plant_faults import ROOT, occurrences


@pytest.mark.parametrize("fault", [*FAULTS, *COMPILED_FAULTS], ids=lambda fault: fault.name)
def test_there_is_one_place_for_a_fault(fault):
    assert occurrences(fault) == 1
    assert all((ROOT / path).exists() for path in fault.tests)


def test_there_are_enough_of_them():
    assert len(FAULTS) >= 25
