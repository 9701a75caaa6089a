"""What torch's own tests ask of its optimizers, asked of every kind here, wrappers included."""

import copy
import inspect
import io
from typing import Any

import torch
from covering import pairwise
from every_optimizer import KINDS, Entry, each_kind
from games import QuadraticGame
from snapshots import all_params, assert_same_bits, snapshot

from compopt import PolymatrixCGD


def stepped(entry: Entry, steps: int = 2, **options: Any) -> tuple[QuadraticGame, Any]:
    game, optimizer = entry.start(**options)
    for _ in range(steps):
        entry.step(optimizer, game.loss)
    return game, optimizer


def flat_state(state: dict[str, Any]) -> list[Any]:
    return [
        value
        for entry in state["state"].values()
        for value in entry.values()
        if isinstance(value, torch.Tensor)
    ]


@each_kind
def test_state_dict_is_deterministic(entry: Entry) -> None:
    first, second = (stepped(entry)[1].state_dict() for _ in range(2))
    assert list(first["state"]) == list(second["state"])
    assert [list(group) for group in first["param_groups"]] == [
        list(group) for group in second["param_groups"]
    ]
    for one, other in zip(flat_state(first), flat_state(second), strict=True):
        assert torch.equal(one, other)


@each_kind
def test_saved_and_loaded_with_weights_only_is_the_same(entry: Entry) -> None:
    _, optimizer = stepped(entry)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    _, other = entry.start()
    other.load_state_dict(torch.load(file, weights_only=True))
    saved, loaded = optimizer.state_dict(), other.state_dict()
    assert [{**group} for group in loaded["param_groups"]] == saved["param_groups"]
    for one, two in zip(flat_state(saved), flat_state(loaded), strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


@each_kind
def test_loading_keeps_the_optimizer_s_own_tensors_apart(entry: Entry) -> None:
    game, optimizer = stepped(entry)
    saved = optimizer.state_dict()
    copied = copy.deepcopy(saved)
    _, other = entry.start()
    other.load_state_dict(copied)
    for _ in range(2):
        entry.step(optimizer, game.loss)
    _, third = entry.start()
    third.load_state_dict(copied)
    for one, two in zip(
        flat_state(other.state_dict()), flat_state(third.state_dict()), strict=True
    ):
        assert torch.equal(one, two)
    assert not {id(value) for value in flat_state(other.state_dict())} & {
        id(value) for value in flat_state(copied)
    }


@each_kind
def test_counts_may_be_numbers(entry: Entry) -> None:
    straight = stepped(entry, 3)[1]
    game, optimizer = stepped(entry)
    state = copy.deepcopy(optimizer.state_dict())
    for value in state["state"].values():
        if "step" in value:
            value["step"] = float(value["step"])
    optimizer.load_state_dict(state)
    entry.step(optimizer, game.loss)
    assert_same_bits(snapshot(optimizer), snapshot(straight))


@each_kind
def test_deepcopy_copies_all_public_attributes(entry: Entry) -> None:
    if not entry.copies:
        return
    _, optimizer = stepped(entry)

    def public(value: Any) -> set[str]:
        return {name for name in vars(value) if not name.startswith("_")}

    assert public(copy.deepcopy(optimizer)) == public(optimizer)


@pairwise(entry=KINDS, saved_with_names=[True, False], loaded_with_names=[True, False])
def test_states_go_from_and_to_named_parameters(
    entry: Entry, saved_with_names: bool, loaded_with_names: bool
) -> None:
    def start(named: bool) -> tuple[QuadraticGame, Any]:
        game = entry.game()
        players = (game.min_params, game.max_params)
        if named:
            players = tuple(
                [(f"{name}.{i}", param) for i, param in enumerate(params)]
                for name, params in zip("xy", players, strict=True)
            )
        return game, entry.make(*players, lr=(0.02, 0.01))

    game, optimizer = start(saved_with_names)
    for _ in range(2):
        entry.step(optimizer, game.loss)
    state = copy.deepcopy(optimizer.state_dict())
    assert ("param_names" in state["param_groups"][0]) == saved_with_names
    other_game, other = start(loaded_with_names)
    with torch.no_grad():
        for param, value in zip(all_params(other), all_params(optimizer), strict=True):
            param.copy_(value)
    other.load_state_dict(state)
    entry.step(optimizer, game.loss)
    entry.step(other, other_game.loss)
    assert_same_bits(snapshot(other), snapshot(optimizer))
    # As in torch, names stay if either has them.
    has_names = saved_with_names or loaded_with_names
    assert ("param_names" in other.state_dict()["param_groups"][0]) == has_names


@each_kind
def test_it_can_be_printed(entry: Entry) -> None:
    _, optimizer = stepped(entry)
    text = repr(optimizer)
    assert text.startswith(entry.cls.__name__) or not entry.copies
    assert text.count("Parameter Group") == len(optimizer.param_groups)
    for key in optimizer.param_groups[0]:
        assert key == "params" or f"{key}: " in text


@each_kind
def test_rates_may_be_tensors(entry: Entry) -> None:
    rates = (torch.tensor(0.02, dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64))
    assert_same_bits(
        snapshot(stepped(entry, lr=tuple(map(torch.Tensor.clone, rates)))[1]),
        snapshot(stepped(entry)[1]),
    )
    assert [float(rate) for rate in rates] == [0.02, 0.01]


@each_kind
def test_a_group_that_is_added_later_moves(entry: Entry) -> None:
    game = entry.game()
    first = [params[:1] for params in (game.min_params, game.max_params)]
    optimizer = entry.make(*first, lr=(0.02, 0.01))
    entry.step(optimizer, game.loss)
    later = [game.min_params[1], game.max_params[1]]
    before = [param.detach().clone() for param in later]
    for group, param in zip(list(optimizer.param_groups), later, strict=True):
        optimizer.add_param_group({"params": [param], "player": group["player"]})
    entry.step(optimizer, game.loss)
    for param, old in zip(later, before, strict=True):
        assert not torch.equal(param, old)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    entry.step(optimizer, game.loss)


@each_kind
def test_a_step_without_loss_or_gradients_is_no_step(entry: Entry) -> None:
    if not entry.copies:
        # A hook that counts calls.
        return
    _, optimizer = stepped(entry)
    before = snapshot(optimizer)
    for grad in (None, 0.0):
        for param in all_params(optimizer):
            param.grad = None if grad is None else torch.full_like(param, grad)
        assert optimizer.step() is None
        after = snapshot(optimizer)
        for name, value in before.items():
            assert torch.equal(after[name], value)


@each_kind
def test_steps_take_their_loss_by_the_name_that_frameworks_use(entry: Entry) -> None:
    parameters = list(inspect.signature(type(entry.start()[1]).step).parameters.values())
    assert parameters[1].name == "closure"
    assert parameters[1].default is None
    game, optimizer = entry.start()
    loss = game.loss

    def closure() -> Any:
        value = loss()
        return [value, -value] if isinstance(optimizer, PolymatrixCGD) else value

    optimizer.step(closure=closure)
    assert_same_bits(snapshot(optimizer), snapshot(stepped(entry, 1)[1]))
