"""The faults that are planted can still be planted; `python tests/plant_faults.py` does it."""

from call_faults import CALL_FAULTS
from compiled_faults import COMPILED_FAULTS
from faults import FAULTS
from plant_faults import ROOT, occurrences


def test_there_is_one_place_for_each_fault():
    faults = [*FAULTS, *CALL_FAULTS, *COMPILED_FAULTS]
    assert {fault.name: occurrences(fault) for fault in faults} == {f.name: 1 for f in faults}
    assert not [path for fault in faults for path in fault.tests if not (ROOT / path).exists()]


def test_there_are_enough_of_them():
    assert len(FAULTS) >= 25
