"""Arguments and players that no optimizer is to be constructed from."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from covering import one_each
from games import QuadraticGame
from optimizer_registry import OPTIMIZERS, ErrorInput, OptimizerInfo, each_error
from torch import Tensor, nn


@each_error
def test_bad_arguments(info: OptimizerInfo, invalid: ErrorInput) -> None:
    game = QuadraticGame()
    with pytest.raises(invalid.error, match=invalid.match):
        info.build(game, **invalid.kwargs)


GROUP_KEYS = ("lr", "weight_decay", "max_grad_norm", "beta", "eps", "betas", "coefficient")
GROUP_KEYS += ("interaction", "momentum", "coupling", "mirror")


# A group is checked as arguments are, so one mistake in each of them says that it is.
IN_A_GROUP = {tuple(case.values[1].kwargs): case for case in each_error.args[1]}


@pytest.mark.parametrize(
    ("info", "invalid"), [case for (name, *_), case in IN_A_GROUP.items() if name in GROUP_KEYS]
)
def test_bad_hyperparameters_of_a_group(info: OptimizerInfo, invalid: ErrorInput) -> None:
    """The same values are refused in a group, and as a default that every group overrides."""
    game = QuadraticGame()
    group = {"params": game.max_params, **invalid.kwargs}
    with pytest.raises((TypeError, ValueError), match=invalid.match):
        info.cls(game.min_params, [group])
    good = dict(info.build(game).param_groups[0])
    good = {name: value for name, value in good.items() if name in GROUP_KEYS}
    groups = ([{"params": params, **good}] for params in (game.min_params, game.max_params))
    with pytest.raises(invalid.error, match=invalid.match):
        info.cls(*groups, **invalid.kwargs)


def leaf(*shape: int, **options: Any) -> Tensor:
    return torch.ones(shape, **options).requires_grad_()


SHARED = leaf(2)
CONSTRUCTIONS: dict[str, tuple[Callable[[], tuple[Any, ...]], type[Exception], str]] = {
    "min-tensor": (lambda: (leaf(2), [leaf(2)]), TypeError, r"`min_params`.*`\[min_params\]`"),
    "max-tensor": (lambda: ([leaf(2)], leaf(2)), TypeError, r"`max_params`.*`\[max_params\]`"),
    "min-module": (
        lambda: (nn.Linear(2, 2), [leaf(2)]),
        TypeError,
        r"`min_params`.*Linear.*module\.parameters\(\)",
    ),
    "max-module": (lambda: ([leaf(2)], nn.Linear(2, 2)), TypeError, "`max_params`.*Linear"),
    "number": (lambda: (3, [leaf(2)]), TypeError, "`min_params`.*int"),
    "none": (lambda: (None, [leaf(2)]), TypeError, "`min_params`.*NoneType"),
    "set": (lambda: ({leaf(2), leaf(2)}, [leaf(2)]), TypeError, "`min_params` must be ordered"),
    "frozenset": (lambda: ([leaf(2)], frozenset([leaf(2)])), TypeError, "`max_params`.*ordered"),
    "state-dict": (
        lambda: (nn.Linear(2, 2).state_dict(), [leaf(2)]),
        TypeError,
        "`min_params` must hold tensors, got str",
    ),
    "floats": (lambda: ([1.0], [leaf(2)]), TypeError, "`min_params` must hold tensors, got float"),
    "array": (lambda: ([leaf(2)], [leaf(2).detach().numpy()]), TypeError, "`max_params`.*ndarray"),
    "empty-min": (lambda: ([], [leaf(2)]), ValueError, "`min_params` is empty"),
    "empty-max": (lambda: ([leaf(2)], iter(())), ValueError, "`max_params` is empty"),
    "empty-module": (
        lambda: (nn.Tanh().parameters(), [leaf(2)]),
        ValueError,
        "`min_params` is empty",
    ),
    "empty-group": (
        lambda: ([{"params": []}], [leaf(2)]),
        ValueError,
        "`min_params` is empty",
    ),
    "one-player": (lambda: ([leaf(2)],), TypeError, "`max_params` is missing"),
    "one-player-groups": (lambda: ([{"params": [leaf(2)]}],), TypeError, "`max_params` is missing"),
    "nothing": (lambda: ([],), TypeError, "`max_params` is missing"),
    "tagged-min-only": (
        lambda: ([{"params": [leaf(2)], "player": "min"}],),
        ValueError,
        '"max"',
    ),
    "tagged-max-only": (
        lambda: ([{"params": [leaf(2)], "player": "max"}],),
        ValueError,
        '"min"',
    ),
    "tagged-otherwise": (
        lambda: ([{"params": [leaf(2)], "player": "critic"}],),
        ValueError,
        "`player` must be one of 'min', 'max', got 'critic'",
    ),
    "wrong-tag": (
        lambda: ([{"params": [leaf(2)], "player": "max"}], [leaf(2)]),
        ValueError,
        "`min_params` has `player` = 'max'",
    ),
    "groups-and-tensors": (
        lambda: ([{"params": [leaf(2)]}, leaf(2)], [leaf(2)]),
        TypeError,
        "`min_params` mixes group dictionaries and Tensor",
    ),
    "group-without-params": (lambda: ([{"lr": 0.1}], [leaf(2)]), ValueError, "`params`"),
    "overlap": (lambda: ([SHARED, leaf(2)], [SHARED]), ValueError, "disjoint; 1 parameters"),
    "same-network": (lambda: ([SHARED], [SHARED]), ValueError, "disjoint; 1 parameters"),
    "duplicates": (lambda: ([SHARED, SHARED], [leaf(2)]), ValueError, "`min_params`.*more than"),
    "duplicates-in-groups": (
        lambda: ([{"params": [SHARED]}, {"params": [SHARED]}], [leaf(2)]),
        ValueError,
        "more than one parameter group",
    ),
    "non-leaf": (lambda: ([leaf(2) * 2], [leaf(2)]), ValueError, "non-leaf"),
    "complex": (
        lambda: ([leaf(2)], [leaf(2, dtype=torch.complex64)]),
        ValueError,
        "`max_params` must hold real floating-point tensors, got torch.complex64",
    ),
    "integer": (lambda: ([torch.ones(2, dtype=torch.int64)], [leaf(2)]), ValueError, "torch.int64"),
    "sparse": (
        lambda: ([torch.eye(2).to_sparse().requires_grad_()], [leaf(2)]),
        ValueError,
        "`min_params` must hold dense tensors, got layout torch.sparse_coo",
    ),
    "expanded": (
        lambda: ([leaf(2)], [torch.ones(1, 3).expand(2, 3).requires_grad_()]),
        ValueError,
        r"`max_params`.*expanded one of shape \(2, 3\)",
    ),
    "name-without-tensor": (
        lambda: ([("a",)], [leaf(2)]),
        TypeError,
        "`min_params` must hold tensors, got tuple",
    ),
    "devices-of-a-player": (
        lambda: ([leaf(2), leaf(2, device="meta")], [leaf(2)]),
        ValueError,
        r"`min_params` must be on one device, got \['cpu', 'meta'\]",
    ),
    "devices-of-the-players": (
        lambda: ([leaf(2)], [leaf(2, device="meta")]),
        ValueError,
        r"`min_params and max_params` must be on one device, got \['cpu', 'meta'\]",
    ),
    "names-and-none": (
        lambda: ([("a", leaf(2)), leaf(2)], [leaf(2)]),
        ValueError,
        "with/without names",
    ),
    "names-of-one-player": (
        lambda: ([("a", leaf(2))], [leaf(2)]),
        ValueError,
        "with/without names",
    ),
}


@pytest.mark.parametrize(("info", "case"), one_each(OPTIMIZERS, list(CONSTRUCTIONS)))
def test_bad_players(info: OptimizerInfo, case: str) -> None:
    make, error, match = CONSTRUCTIONS[case]
    with pytest.raises(error, match=match):
        info.cls(*make())


def test_what_is_not_taken_from_a_group_is_refused() -> None:
    """``CGD`` would else be adaptive with ``beta``, and others pass over what is meant."""
    keys = {"beta": 0.9, "betas": (0.5, 0.9), "momentum": 0.9, "solver": None, "warm_start": True}
    for info in OPTIMIZERS:
        game = QuadraticGame()
        optimizer = info.build(game)
        for key, value in keys.items():
            group = {"params": game.min_params, key: value}
            if key in optimizer.defaults:
                info.cls([group], game.max_params)
                continue
            with pytest.raises(ValueError, match=f"takes no `{key}`"):
                info.cls([group], game.max_params)
            state = optimizer.state_dict()
            state["param_groups"][0][key] = value
            with pytest.raises(ValueError, match=f"takes no `{key}`"):
                optimizer.load_state_dict(state)
        info.cls([{"params": game.min_params, "note": "encoder"}], game.max_params)


def test_misspelt_hyperparameters_of_a_group_are_refused() -> None:
    notes = {"initial_lr": 1.0, "lr_scale": 1.0, "layer": 3, "name": "encoder", "epoch": 2}
    for info in OPTIMIZERS:
        game = QuadraticGame()
        defaults = info.build(game).defaults
        misspelt = {"maximise": "maximize", "LR": "lr"}
        misspelt |= {key[:-1] + key[-1] * 2: key for key in defaults if len(key) > 3}
        for key, meant in misspelt.items():
            with pytest.raises(ValueError, match=f"takes no `{key}`. Did you mean `{meant}`"):
                info.cls([{"params": game.min_params, key: 0.5}], game.max_params)
        info.cls([{"params": game.min_params, **notes}], game.max_params)
