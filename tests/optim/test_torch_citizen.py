import inspect
import weakref
from functools import partial

import pytest
import torch
from dense_steps import DenseReference, assert_dense_step
from games import NetworkGame, QuadraticGame, Token
from optimizer_registry import (
    KINDS,
    OPTIMIZERS,
    OptimizerInfo,
    Variant,
    each_competitive,
    each_competitive_kind,
    each_kind,
    each_optimizer,
    each_stateful_option,
    each_variant,
)
from snapshots import all_params, assert_same_bits, bits, snapshot

import compopt
from compopt import ConjugateGradient, DirectSolver
from compopt.optim import rivals


def test_every_optimizer_has_a_row() -> None:
    exported = {
        value
        for module in (compopt, rivals)
        for value in map(vars(module).get, module.__all__)
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    # Files of their own have what is not given two players (test_polymatrix.py), and what has the
    # groups and state of torch's optimizers (test_descent_ascent.py). What all have in common is in
    # test_every_optimizer.py.
    wrappers = {
        compopt.PolymatrixCGD,
        rivals.SimultaneousDescentAscent,
        rivals.AlternatingDescentAscent,
    }
    assert exported == {info.cls for info in OPTIMIZERS} | wrappers


@each_optimizer
def test_every_argument_has_a_variant(info: OptimizerInfo) -> None:
    arguments = set(inspect.signature(info.cls).parameters) - {"min_params", "max_params"}
    tried = {name for variant in info.variants for name in variant.kwargs}
    # These are tried in tests/kernels and tests/distributed.
    assert arguments - {"backend", "process_group"} == tried


@pytest.mark.parametrize(
    ("info", "variant"), [pytest.param(info, info.variants[1], id=info.name) for info in KINDS]
)
def test_steps_move_both_players_and_count(info: OptimizerInfo, variant: Variant) -> None:
    game = NetworkGame()
    optimizer = info.build(game, **variant.kwargs)
    before = [param.detach().clone() for param in all_params(optimizer)]
    for step in range(3):
        loss = optimizer.step(partial(game.loss, step))
        assert not loss.requires_grad
        assert not info.is_competitive or optimizer.last_step.taken
    has_moved = [
        not torch.equal(param, old)
        for param, old in zip(all_params(optimizer), before, strict=True)
    ]
    assert has_moved == [variant.kwargs.get("lr") != 0.0] * len(before)
    assert {optimizer.state[param]["step"].item() for param in all_params(optimizer)} == {3.0}
    assert all(param.grad is None for param in all_params(optimizer))
    assert all(param.requires_grad for param in all_params(optimizer))


@each_variant
def test_steps_are_the_dense_ones(info: OptimizerInfo, variant: Variant) -> None:
    game = QuadraticGame()
    optimizer = info.build(game, **{**variant.kwargs, "solver": DirectSolver()})
    reference = DenseReference(info, game)
    for _ in range(6):
        assert_dense_step(info, optimizer, reference)


@each_competitive
def test_the_step_differs_from_the_plain_gradient_step(info: OptimizerInfo) -> None:
    """Without this, the dense comparison could not tell a competitive step from a plain one."""
    game = QuadraticGame()
    optimizer = info.exact(game, lr=0.1)
    optimizer_params = DenseReference(info, game).next_params(optimizer, interacts=False)
    optimizer.step(game.loss)
    for param, plain in optimizer_params:
        assert (param.detach() - plain).abs().max() > 1e-5


@each_kind
def test_same_steps_in_two_runs(info: OptimizerInfo) -> None:
    snapshots = []
    for _ in range(2):
        game = NetworkGame()
        optimizer = info.build(game, lr=0.05, warm_start=True)
        for step in range(3):
            optimizer.step(partial(game.loss, step))
        snapshots.append(snapshot(optimizer))
    assert_same_bits(*snapshots)


def test_construction_has_no_side_effects() -> None:
    for info in KINDS:
        game = NetworkGame()
        game.critic[0].bias.requires_grad_(False)
        rng = torch.random.get_rng_state()
        optimizer = info.build(game)
        assert len(optimizer.state) == 0, info
        assert torch.equal(torch.random.get_rng_state(), rng), info
        assert not hasattr(optimizer, "last_step"), info
        assert [param.requires_grad for param in game.max_params] == [True, False, True, True]


def test_repr_lists_every_group() -> None:
    for info in KINDS:
        text = repr(info.build(QuadraticGame(), lr=torch.tensor(0.1)))
        assert text.startswith(f"{info.name} (")
        for part in ("player: min", "player: max", "lr: ", "weight_decay: ", "max_grad_norm: "):
            assert part in text, info
        assert "tensor([" not in text, info


@each_optimizer
def test_rebuild_from_groups_and_defaults(info: OptimizerInfo) -> None:
    """Wrappers construct ``type(optimizer)(optimizer.param_groups, **optimizer.defaults)``."""
    game = NetworkGame()
    optimizer = info.build(game, **{"lr": (0.1, torch.tensor(0.02)), **info.own[0]})
    rebuilt = info.cls(optimizer.param_groups, **optimizer.defaults)
    assert repr(rebuilt) == repr(optimizer)
    assert rebuilt.defaults == optimizer.defaults
    for group, other in zip(rebuilt.param_groups, optimizer.param_groups, strict=True):
        assert group is not other
        assert list(map(id, group["params"])) == list(map(id, other["params"]))
    rebuilt.load_state_dict(optimizer.state_dict())
    # Loading must not leave defaults that the constructor does not take.
    info.cls(rebuilt.param_groups, **rebuilt.defaults)


@each_kind
def test_zero_grad(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    game.loss().backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(bool((param.grad == 0).all()) for param in all_params(optimizer))
    optimizer.zero_grad()
    assert all(param.grad is None for param in all_params(optimizer))


@each_kind
def test_step_with_a_loss_ignores_grad(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    for param in all_params(optimizer):
        param.grad = torch.full_like(param, torch.nan)
    grads = [param.grad for param in all_params(optimizer)]
    assert_dense_step(info, optimizer, DenseReference(info, game))
    for param, grad in zip(all_params(optimizer), grads, strict=True):
        assert param.grad is grad
        assert bool(grad.isnan().all())


def test_global_grad_mode_does_not_matter() -> None:
    info, game = OPTIMIZERS[0], QuadraticGame()
    optimizer = info.exact(game)
    with torch.no_grad():
        assert_dense_step(
            info, optimizer, DenseReference(info, game), lambda: optimizer.step(game.loss)
        )
        assert not torch.is_grad_enabled()
    optimizer.step(game.loss)
    assert torch.is_grad_enabled()


@each_kind
def test_versions_of_parameters_advance(info: OptimizerInfo) -> None:
    """Autograd must notice that a graph built before the step is stale."""
    game = NetworkGame()
    optimizer = info.build(game)
    loss = game.loss()
    versions = [param._version for param in all_params(optimizer)]
    optimizer.step(game.loss)
    assert all(p._version > old for p, old in zip(all_params(optimizer), versions, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@each_stateful_option
def test_step_with_nothing_to_do_creates_state_only(info: OptimizerInfo, variant: Variant) -> None:
    game = NetworkGame()
    optimizer = info.build(game, **variant.kwargs)
    params = [param.detach().clone() for param in all_params(optimizer)]
    assert optimizer.step() is None
    for param, old in zip(all_params(optimizer), params, strict=True):
        assert torch.equal(bits(param), bits(old))
        assert "step" in optimizer.state[param]
        assert all(bool((value == 0).all()) for value in optimizer.state[param].values())
    twin_game = NetworkGame()
    twin = info.build(twin_game, **variant.kwargs)
    for step in range(3):
        optimizer.step(partial(game.loss, step))
        twin.step(partial(twin_game.loss, step))
    assert_same_bits(snapshot(optimizer), snapshot(twin))
    before = snapshot(optimizer)
    for param in all_params(optimizer):
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert_same_bits(snapshot(optimizer), before)


@each_kind
def test_step_on_foreign_gradients_is_an_error(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    before = snapshot(optimizer)
    for value in (1.0, float("nan")):
        game.max_params[1].grad = torch.full_like(game.max_params[1], value)
        with pytest.raises(RuntimeError, match=r"Call `step\((loss|closure)\)`"):
            optimizer.step()
        game.max_params[1].grad = None
        assert_same_bits(snapshot(optimizer), before)


@each_kind
def test_two_optimizers_of_one_class_do_not_mix(info: OptimizerInfo) -> None:
    games = [QuadraticGame(seed=seed) for seed in (0, 1)]
    optimizers = [info.exact(game, lr=lr) for game, lr in zip(games, (0.1, 0.05), strict=True)]
    references = [DenseReference(info, game) for game in games]
    for _ in range(3):
        for optimizer, reference in zip(optimizers, references, strict=True):
            assert_dense_step(info, optimizer, reference)


@each_kind
def test_moving_average_of_weights(info: OptimizerInfo) -> None:
    game = NetworkGame()
    optimizer = info.build(game, lr=0.05)
    average = torch.optim.swa_utils.AveragedModel(
        game.generator, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    expected = None
    for step in range(3):
        optimizer.step(partial(game.loss, step))
        average.update_parameters(game.generator)
        weight = game.generator[0].weight.detach().clone()
        expected = weight if expected is None else 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(average.module[0].weight.detach(), expected)


@each_stateful_option
def test_the_graph_is_freed_with_the_loss(info: OptimizerInfo, variant: Variant) -> None:
    game = NetworkGame()
    optimizer = info.build(game, **variant.kwargs)
    token = Token()
    alive = weakref.ref(token)
    if info.needs_closure:
        optimizer.step(partial(game.loss, token=token))
        del token
    else:
        loss = game.loss(token=token)
        del token
        optimizer.step(loss)
        assert alive() is not None
        del loss
    assert alive() is None


@each_competitive_kind
def test_fixed_count_does_not_warn_and_a_tolerance_does(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    info.exact(game, lr=1.0, solver=ConjugateGradient(rtol=0.0, max_iter=1)).step(game.loss)
    strict = ConjugateGradient(rtol=1e-12, max_iter=1)
    optimizer = info.exact(game, lr=1.0, solver=strict)
    with pytest.warns(compopt.ConvergenceWarning, match="all its iterations") as record:
        optimizer.step(game.loss)
    assert len(record) == 1
    assert record[0].filename == __file__
    assert optimizer.last_step.taken
    # Once is enough: a second warning would be an error here.
    optimizer.step(game.loss)
