"""A small set of cases in which every two settings meet, instead of all combinations."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

Axis = Mapping[str, Any] | Iterable[Any]


def pairwise(
    *, where: Callable[..., bool] = lambda **_: True, **axes: Axis
) -> pytest.MarkDecorator:
    """Parametrize so that each value of an argument meets each value of every other one.

    Most faults depend on one setting or on two together. Three settings whose interplay matters
    belong in one argument.

    Args:
        where: takes the arguments by name; False leaves a combination out.
        axes: for each argument its values, or a dictionary from the names of its values to them.
    """
    chosen = covering({name: list(_named(axis)) for name, axis in axes.items()}, where)
    cases = [
        pytest.param(*(value for _, value in case), id="-".join(name for name, _ in case))
        for case in chosen
    ]
    return pytest.mark.parametrize(tuple(axes), cases)


def covering(
    axes: Mapping[str, list[tuple[str, Any]]], where: Callable[..., bool]
) -> list[tuple[tuple[str, Any], ...]]:
    """Return combinations in which all pairs occur that occur in any, by greedy choice.

    Args:
        axes: for each argument pairs of a name and a value.
        where: as for :func:`pairwise`.
    """
    numbers: dict[tuple[int, str, int, str], int] = {}
    cases = []
    for case in itertools.product(*axes.values()):
        if where(**{name: value for name, (_, value) in zip(axes, case, strict=True)}):
            pairs = itertools.combinations(enumerate(name for name, _ in case), 2)
            keys = [(i, one, j, other) for (i, one), (j, other) in pairs]
            mask = sum(1 << numbers.setdefault(key, len(numbers)) for key in keys)
            cases.append((mask, case))
    missing, chosen = (1 << len(numbers)) - 1, []
    while missing:
        mask, best = max(cases, key=lambda item: (item[0] & missing).bit_count())
        chosen.append(best)
        missing &= ~mask
    return chosen


def one_each(first: Axis, second: Axis) -> list[Any]:
    """Return cases of two arguments in which each value of both occurs, the longer once.

    For checks that depend on either, but not on both together.
    """
    one, other = list(_named(first)), list(_named(second))
    length = max(len(one), len(other))
    return [
        pytest.param(a, b, id=f"{name}-{other_name}")
        for (name, a), (other_name, b) in itertools.islice(
            zip(itertools.cycle(one), itertools.cycle(other), strict=False), length
        )
    ]


def _named(axis: Axis) -> Iterable[tuple[str, Any]]:
    if isinstance(axis, Mapping):
        return axis.items()
    return [(_name(value), value) for value in axis]


def _name(value: Any) -> str:
    return str(getattr(value, "name", None) or getattr(value, "__name__", None) or value)
