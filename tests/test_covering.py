"""Every two settings meet in the cases that stand for all combinations."""

import itertools
from typing import Any

from covering import covering, one_each, pairwise

AXES: dict[str, list[Any]] = {"a": [1, 2, 3, 4], "b": ["x", "y", "z"], "c": [True, False]}


def cases(**options: Any) -> list[tuple[Any, ...]]:
    return [case.values for case in pairwise(**AXES, **options).args[1]]


def test_every_pair_occurs_in_few_cases() -> None:
    chosen = cases()
    for (i, one), (j, other) in itertools.combinations(enumerate(AXES.values()), 2):
        assert {(case[i], case[j]) for case in chosen} == set(itertools.product(one, other))
    # As many as the two longest need, of 24.
    assert len(chosen) == 12


def test_what_is_left_out_stays_out_and_the_rest_is_there() -> None:
    chosen = cases(where=lambda a, b, c: a != 1 or c)
    assert all(case[2] for case in chosen if case[0] == 1)
    assert {(case[1], case[2]) for case in chosen} == set(itertools.product(AXES["b"], AXES["c"]))


def test_names_are_those_of_the_values() -> None:
    assert pairwise(a={"one": 1}, b=[True]).args[1][0].id == "one-True"
    assert covering({"a": [("one", 1)], "b": []}, lambda **_: True) == []


def test_one_each_has_all_values() -> None:
    pairs = [case.values for case in one_each(AXES["a"], AXES["b"])]
    assert pairs == [(1, "x"), (2, "y"), (3, "z"), (4, "x")]
