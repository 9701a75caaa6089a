"""State that belongs to nobody here, to replaced parameters, and to other optimizers' dtypes."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from covering import pairwise
from every_optimizer import KINDS, Entry
from games import NetworkGame, QuadraticGame
from snapshots import all_params, assert_same_bits, bits, snapshot
from torch import Tensor
from training_runs import through_file

from compopt import ACGD, CGD, DirectSolver
from compopt.optim.rivals import AlternatingDescentAscent, SimultaneousDescentAscent

OTHERS = {"done": True, "notes": {"epochs": [1, 2]}, "average": torch.ones(2)}
FIXED = {"capturable": True, "solver": DirectSolver()}
ENTRIES = (
    *KINDS,
    *(Entry(f"{cls.__name__}-capturable", partial(cls, **FIXED), cls) for cls in (CGD, ACGD)),
    # It looks into the first entry that it is given.
    Entry(
        "SimultaneousDescentAscent-Adagrad",
        partial(SimultaneousDescentAscent, optimizer=torch.optim.Adagrad),
        SimultaneousDescentAscent,
    ),
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_others_may_keep_things_in_the_state(entry: Entry) -> None:
    (game, optimizer), (twin_game, twin) = entry.start(), entry.start()
    for key, value in OTHERS.items():
        optimizer.state[key] = copy.deepcopy(value)
    for _ in range(3):
        entry.step(optimizer, game.loss)
        entry.step(twin, twin_game.loss)
    saved = through_file(optimizer.state_dict())
    resumed_game, resumed = entry.start()
    with torch.no_grad():
        for param, value in zip(all_params(resumed), all_params(optimizer), strict=True):
            param.copy_(value)
    resumed.load_state_dict(saved)
    entry.step(resumed, resumed_game.loss)
    entry.step(twin, twin_game.loss)
    for one in (optimizer, resumed):
        assert one.state["done"] is True
        assert one.state["notes"] == OTHERS["notes"]
        assert torch.equal(one.state["average"], torch.ones(2))
    ours, theirs = snapshot(resumed), snapshot(twin)
    assert ours.pop("number of states") == theirs.pop("number of states") + len(OTHERS)
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("key", [7, "critic.weight"])
def test_state_of_unknown_parameters_is_still_refused(key: object) -> None:
    game = QuadraticGame()
    optimizer = ACGD(game.min_params, game.max_params)
    optimizer.step(game.loss())
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][key] = saved["state"].pop(3)
    with pytest.raises(ValueError, match="entries for no parameter"):
        optimizer.load_state_dict(saved)


class Replaced(QuadraticGame):
    """Its max player's first parameter is replaced by another of the same entries."""

    def replace(self, optimizer: torch.optim.Optimizer) -> Tensor:
        new = self.max_params[0].detach().clone().mul_(1.1).requires_grad_()
        for group in optimizer.param_groups:
            group["params"] = [
                new if param is self.max_params[0] else param for param in group["params"]
            ]
        self.max_params[0] = new
        return new


@pytest.mark.parametrize(
    "entry", [e for e in KINDS if issubclass(Replaced, e.game)], ids=lambda entry: entry.name
)
def test_the_state_of_replaced_parameters_is_dropped(entry: Entry) -> None:
    game = Replaced()
    optimizer = entry.make(game.min_params, game.max_params, lr=(0.02, 0.01))
    entry.step(optimizer, game.loss)
    stays = {id(param): copy.deepcopy(optimizer.state.get(param)) for param in game.min_params}
    for _ in range(4):
        new = game.replace(optimizer)
        # Before its first step, and after.
        assert len(optimizer.state_dict()["state"]) <= 4
        entry.step(optimizer, game.loss)
        assert len(optimizer.state) <= 4
        assert any(param is new for param in all_params(optimizer))
    saved = through_file(optimizer.state_dict())
    assert set(saved["state"]) <= {0, 1, 2, 3}
    for param in game.min_params:
        count = optimizer.state.get(param, {}).get("step")
        if count is not None and (stays[id(param)] or {}).get("step") is not None:
            assert count == stays[id(param)]["step"] + 4
    # It is loaded by another, and steps go on alike.
    other = Replaced()
    resumed = entry.make(other.min_params, other.max_params, lr=(0.02, 0.01))
    with torch.no_grad():
        for param, value in zip(all_params(resumed), all_params(optimizer), strict=True):
            param.copy_(value)
    resumed.load_state_dict(saved)
    entry.step(optimizer, game.loss)
    entry.step(resumed, other.loss)
    for param, value in zip(all_params(resumed), all_params(optimizer), strict=True):
        assert torch.equal(bits(param), bits(value))


def test_steps_alone_drop_it_too() -> None:
    """Without a state dict: a player that is new at each batch does not pile up."""
    game = QuadraticGame()
    optimizer = ACGD(game.min_params, game.max_params)
    for _ in range(5):
        game.max_params[:] = [torch.ones(3, dtype=torch.float64, requires_grad=True)]
        optimizer.param_groups[1]["params"] = game.max_params
        optimizer.step(game.loss())
        assert len(optimizer.state) == 3
        assert optimizer.state[game.max_params[0]]["step"] == 1


def test_frozen_parameters_keep_their_state() -> None:
    game = QuadraticGame()
    optimizer = ACGD(game.min_params, game.max_params)
    optimizer.step(game.loss())
    kept = snapshot(optimizer)["state 0 exp_avg_sq"]
    game.min_params[0].requires_grad_(False)
    for _ in range(2):
        game.max_params[0] = game.max_params[0].detach().clone().requires_grad_()
        optimizer.param_groups[1]["params"][0] = game.max_params[0]
        optimizer.step(game.loss())
    optimizer.state_dict()
    assert torch.equal(optimizer.state[game.min_params[0]]["exp_avg_sq"], kept)


INNER: dict[str, Any] = {
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "amsgrad": partial(torch.optim.Adam, amsgrad=True),
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.5, centered=True),
    "adagrad": torch.optim.Adagrad,
    "pair": (torch.optim.Adam, torch.optim.SGD),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float64)


@pairwise(
    cls=[SimultaneousDescentAscent, AlternatingDescentAscent],
    inner=INNER,
    saved_in=DTYPES[::2],
    to=DTYPES,
    counts=["tensors", "numbers"],
)
def test_checkpoints_of_another_dtype(
    cls: Any, inner: Any, saved_in: torch.dtype, to: torch.dtype, counts: str
) -> None:
    """As when each player's own optimizer loads its part."""

    def start(dtype: torch.dtype) -> tuple[NetworkGame, Any]:
        game = NetworkGame(dtype)
        return game, cls(game.min_params, game.max_params, lr=(0.02, 0.01), optimizer=inner)

    game, optimizer = start(saved_in)
    for batch in range(2):
        optimizer.step(partial(game.loss, batch))
    saved = through_file(optimizer.state_dict())
    if counts == "numbers":
        for entry in saved["state"].values():
            if "step" in entry:
                entry["step"] = entry["step"].item()
    loaded_game, loaded = start(to)
    loaded.load_state_dict(saved)
    pair = inner if isinstance(inner, tuple) else (inner, inner)
    own = [
        make([{**group, "params": list(group["params"])}], lr=0.1)
        for make, group in zip(pair, loaded.param_groups, strict=True)
    ]
    for twin, group in zip(own, saved["param_groups"], strict=True):
        state = {i: saved["state"][i] for i in group["params"] if i in saved["state"]}
        twin.load_state_dict({"state": state, "param_groups": [group]})
        for param in twin.param_groups[0]["params"]:
            for key, value in twin.state[param].items():
                mine = loaded.state[param][key]
                if isinstance(value, Tensor):
                    assert mine.dtype == value.dtype
                    assert torch.equal(mine, value)
                    assert mine is not saved["state"].get(key)
    loaded.step(partial(loaded_game.loss, 2))
    assert all(bool(param.isfinite().all()) for param in all_params(loaded))


@pytest.mark.parametrize("cls", [SimultaneousDescentAscent, AlternatingDescentAscent])
def test_loaded_state_is_not_shared_with_the_dictionary(cls: Any) -> None:
    game = NetworkGame()
    optimizer = cls(game.min_params, game.max_params, optimizer=torch.optim.Adam)
    optimizer.step(game.loss)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    optimizer.step(game.loss)
    for index, entry in kept["state"].items():
        for key, value in entry.items():
            assert torch.equal(saved["state"][index][key], value)
