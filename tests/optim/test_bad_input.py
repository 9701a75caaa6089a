from collections.abc import Callable
from typing import Any

import pytest
import torch
from games import NetworkGame, QuadraticGame
from optimizer_registry import ErrorInput, OptimizerInfo, each_error, each_optimizer
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor, nn

from compopt import Game


@each_error
def test_bad_arguments(info: OptimizerInfo, invalid: ErrorInput) -> None:
    game = QuadraticGame()
    with pytest.raises(invalid.error, match=invalid.match):
        info.cls(game.min_params, game.max_params, **invalid.kwargs)


GROUP_KEYS = ("lr", "weight_decay", "max_grad_norm", "beta", "eps")


@each_error
def test_bad_hyperparameters_of_a_group(info: OptimizerInfo, invalid: ErrorInput) -> None:
    """The same values are refused in a group, and as a default that every group overrides."""
    game = QuadraticGame()
    own = {name: value for name, value in invalid.kwargs.items() if name in GROUP_KEYS}
    if not own:
        return
    group = {"params": game.max_params, **own}
    with pytest.raises((TypeError, ValueError), match=invalid.match):
        info.cls(game.min_params, [group])
    good = dict(info.cls(game.min_params, game.max_params).param_groups[0])
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


@pytest.mark.parametrize("case", CONSTRUCTIONS)
@each_optimizer
def test_bad_players(info: OptimizerInfo, case: str) -> None:
    make, error, match = CONSTRUCTIONS[case]
    with pytest.raises(error, match=match):
        info.cls(*make())


def backward_by_the_user(game: QuadraticGame) -> Tensor:
    loss = game.loss()
    loss.backward()
    return loss.detach()


def freed_loss(game: NetworkGame) -> Tensor:
    loss = game.loss()
    torch.autograd.grad(loss, game.min_params)
    return loss


def stale_loss(game: NetworkGame) -> Tensor:
    loss = game.loss()
    with torch.no_grad():
        for param in game.max_params:
            param.add_(1.0)
    return loss


# What is passed as a loss, made from a game; the error; its message; the penalties.
LOSSES: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "constant": (lambda game: torch.tensor(1.0), ValueError, "`loss`.*without a graph"),
    "detached": (lambda game: game.loss().detach(), ValueError, "manual-optimization"),
    "backward-called": (lambda game: lambda: backward_by_the_user(game), ValueError, "backward"),
    "vector": (
        lambda game: game.loss() * torch.ones(3),
        ValueError,
        r"`loss` must be a real scalar.*shape \(3,\).*`.mean\(\)`",
    ),
    "empty": (lambda game: game.loss() * torch.ones(0), ValueError, r"shape \(0,\)"),
    "integer": (lambda game: torch.tensor(1), ValueError, "torch.int64"),
    "bool": (lambda game: game.loss() > 0, ValueError, "torch.bool"),
    "complex": (lambda game: game.loss() * 1j, ValueError, "torch.complex64"),
    "meta": (lambda game: game.loss().to("meta"), ValueError, "device.*cpu, got meta"),
    "float": (lambda game: game.loss().item(), TypeError, "`loss` must be a scalar.*float"),
    "closure-of-none": (lambda game: lambda: None, TypeError, "got NoneType"),
    "closure-of-float": (lambda game: lambda: 1.0, TypeError, "got float"),
    "closure-of-closure": (lambda game: lambda: game.loss, TypeError, "got method"),
    "dictionary": (lambda game: {"loss": game.loss()}, TypeError, "got dict"),
    "pair": (
        lambda game: (game.loss(), -game.loss()),
        TypeError,
        "one zero-sum loss, got a tuple of 2.*`min_penalty`",
    ),
    "closure-of-pair": (lambda game: lambda: (game.loss(), game.loss()), TypeError, "tuple of 2"),
    "no-micro-batch": (lambda game: [], ValueError, "empty list"),
    "micro-batch-of-float": (lambda game: [game.loss(), 1.0], TypeError, "got float"),
    "micro-batch-detached": (
        lambda game: [game.loss(), game.loss().detach()],
        ValueError,
        "without a graph",
    ),
    "micro-batch-vector": (lambda game: [game.loss().expand(2)], ValueError, r"shape \(2,\)"),
    "micro-batch-meta": (
        lambda game: [game.loss(), game.loss().to("meta")],
        ValueError,
        "got meta",
    ),
    "game-of-none": (lambda game: Game(None), TypeError, "`loss`.*got NoneType"),
    "game-of-constant": (lambda game: Game(torch.tensor(1.0)), ValueError, "without a graph"),
    "game-of-float-penalty": (lambda game: Game(game.loss(), 1.0), TypeError, "`min_penalty`"),
    "game-of-constant-penalty": (
        lambda game: Game(game.loss(), None, torch.tensor(1.0)),
        ValueError,
        "`max_penalty`.*without a graph",
    ),
    "game-of-vector-penalty": (
        lambda game: Game(game.loss(), game.loss().expand(2)),
        ValueError,
        r"`min_penalty`.*shape \(2,\)",
    ),
    "game-of-meta-penalty": (
        lambda game: Game(game.loss(), game.loss().to("meta")),
        ValueError,
        "`min_penalty`.*got meta",
    ),
    "without-the-max-player": (
        lambda game: sum(param.square().sum() for param in game.min_params),
        ValueError,
        "both players; none of the max player's",
    ),
    "without-the-min-player": (
        lambda game: game.critic(game.real[0]).mean(),
        ValueError,
        "both players; none of the min player's",
    ),
    "freed-graph": (freed_loss, RuntimeError, "a second time"),
    "stale-graph": (stale_loss, RuntimeError, "modified by an inplace operation"),
}


@pytest.mark.parametrize("after", [0, 2], ids=["first-step", "later-step"])
@pytest.mark.parametrize("method", ["step", "backward"])
@pytest.mark.parametrize("case", LOSSES)
@each_optimizer
def test_bad_losses_change_nothing(info: OptimizerInfo, case: str, method: str, after: int) -> None:
    make, error, match = LOSSES[case]
    game, twin_game = NetworkGame(), NetworkGame()
    optimizer, twin = (
        info.cls(g.min_params, g.max_params, lr=0.05, warm_start=True) for g in (game, twin_game)
    )
    for step in range(after):
        optimizer.step(game.loss(step))
    loss = make(game)
    before = snapshot(optimizer)
    with pytest.raises(error, match=match):
        getattr(optimizer, method)(loss)
    assert_same_bits(snapshot(optimizer), before)
    assert not (after == 0 and optimizer.state)
    assert (optimizer.last_step is None) == (after == 0)
    if case == "stale-graph":
        return
    # The optimizer works on as if nothing had happened.
    optimizer.step(game.loss(after))
    for step in range(after + 1):
        twin.step(twin_game.loss(step))
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@pytest.mark.parametrize("method", ["step", "backward"])
@pytest.mark.parametrize("player", ["min", "max"])
@each_optimizer
def test_penalty_given_twice(info: OptimizerInfo, player: str, method: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    penalty = {f"{player}_penalty": game.params(player)[0].sum()}
    with pytest.raises(ValueError, match=f"`{player}_penalty` is given in the `Game` and as an"):
        getattr(optimizer, method)(Game(game.loss(), **penalty), **penalty)
    assert len(optimizer.state) == 0


@pytest.mark.parametrize("method", ["step", "backward"])
@each_optimizer
def test_error_of_the_closure_is_passed_on(info: OptimizerInfo, method: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    before = snapshot(optimizer)

    def closure() -> Tensor:
        raise KeyError("batch")

    with pytest.raises(KeyError, match="batch"):
        getattr(optimizer, method)(closure)
    assert_same_bits(snapshot(optimizer), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("method", ["step", "backward"])
@each_optimizer
def test_sparse_gradients_are_refused(info: OptimizerInfo, method: str) -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    critic = leaf(2)
    optimizer = info.cls(embedding.parameters(), [critic])
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"dense.*`sparse=False`"):
        getattr(optimizer, method)((embedding(torch.tensor([0, 1])) @ critic).sum())
    assert_same_bits(snapshot(optimizer), before)


@each_optimizer
def test_backward_needs_a_loss(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    with pytest.raises(TypeError, match="got NoneType"):
        optimizer.backward(None)
    assert all(param.grad is None for param in all_params(optimizer))
