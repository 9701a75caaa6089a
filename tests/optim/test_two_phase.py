import weakref
from typing import Any

import pytest
import torch
from covering import pairwise
from dense_steps import DenseReference, assert_close, assert_dense_step
from games import NetworkGame, QuadraticGame, Token, flat
from optimizer_registry import OptimizerInfo, Variant, each_competitive_option, each_two_phase
from snapshots import all_params, assert_same_bits, snapshot

from compopt import StepWarning

SCALE = 2.0**10


def grads(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [param.grad for param in all_params(optimizer)]


@each_competitive_option
def test_backward_and_step_equal_step(info: OptimizerInfo, variant: Variant) -> None:
    game, twin_game = NetworkGame(), NetworkGame()
    optimizer = info.cls(game.min_params, game.max_params, **variant.kwargs)
    twin = info.cls(twin_game.min_params, twin_game.max_params, **variant.kwargs)
    for step in range(4):
        optimizer.zero_grad()
        loss = optimizer.backward(game.loss(step))
        assert not loss.requires_grad
        optimizer.step()
        assert twin.step(twin_game.loss(step)) == loss
        assert_same_bits(snapshot(optimizer), snapshot(twin))


@each_two_phase
def test_grad_is_that_of_the_own_objective(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    for param in all_params(optimizer):
        param.grad = torch.full_like(param, 7.0)
    optimizer.backward(game.loss())
    expected = game.own_grads()
    for player in ("min", "max"):
        actual = flat([param.grad for param in game.params(player)])
        assert_close(actual, expected[player], f"gradient of the {player} player")
    assert [grad.shape for grad in grads(optimizer)] == [(2,), (1, 3), (2,), ()]
    assert all(not grad.requires_grad for grad in grads(optimizer))


@each_two_phase
def test_backward_alone_moves_nothing(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    before = snapshot(optimizer)
    optimizer.backward(game.loss())
    assert_same_bits(snapshot(optimizer), before)
    assert not hasattr(optimizer, "last_step")


@each_two_phase
def test_last_backward_counts(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.backward(5 * game.loss())
    reference = DenseReference(info, game)
    with pytest.warns(StepWarning, match="do not accumulate"):
        optimizer.backward(game.loss())
    assert_dense_step(info, optimizer, reference, optimizer.step)


@each_two_phase
def test_step_with_a_loss_drops_the_prepared_one(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.backward(5 * game.loss())
    with pytest.warns(StepWarning, match="discards an earlier `backward`"):
        assert_dense_step(info, optimizer, DenseReference(info, game))
    with pytest.raises(RuntimeError, match="no graph"):
        optimizer.step()


@each_two_phase
def test_a_prepared_step_is_taken_once(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.backward(game.loss())
    optimizer.step()
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match="no graph"):
        optimizer.step()
    assert_same_bits(snapshot(optimizer), before)


@each_two_phase
def test_changed_grad_is_solved_with(info: OptimizerInfo) -> None:
    """What stands in ``.grad`` enters the system; None counts as zero; the mixed block stays."""
    game = QuadraticGame()
    optimizer = info.exact(game)
    extra = {"min": torch.full((5,), 0.5, dtype=torch.float64)}
    extra["max"] = torch.zeros(3, dtype=torch.float64)
    extra["max"][2] = -game.own_grads()["max"][2]

    def step() -> None:
        optimizer.backward(game.loss())
        for param in game.min_params:
            param.grad.add_(0.5)
        game.max_params[1].grad = None
        optimizer.step()

    assert_dense_step(info, optimizer, DenseReference(info, game), step, extra=extra)


@pytest.mark.parametrize("player", ["min", "max", "both"])
@each_two_phase
def test_clipping_between_the_phases(info: OptimizerInfo, player: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    players = ("min", "max") if player == "both" else (player,)
    own = game.own_grads()
    extra = {}
    for name in players:
        norm = own[name].norm()
        assert norm > 0.4
        extra[name] = own[name] * (0.4 / (norm + 1e-6) - 1)

    def step() -> None:
        optimizer.backward(game.loss())
        for name in players:
            torch.nn.utils.clip_grad_norm_(game.params(name), 0.4)
        optimizer.step()

    assert_dense_step(info, optimizer, DenseReference(info, game), step, extra=extra)


def drop_by_other_loss(game: NetworkGame, optimizer: torch.optim.Optimizer) -> None:
    with pytest.warns(StepWarning, match="do not accumulate"):
        optimizer.backward(game.loss(1))


DROPS = {
    "zero_grad": lambda game, optimizer: optimizer.zero_grad(),
    "step": lambda game, optimizer: optimizer.step(),
    "loading": lambda game, optimizer: optimizer.load_state_dict(optimizer.state_dict()),
    "other loss": drop_by_other_loss,
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
@each_two_phase
def test_graph_is_kept_until_used_or_dropped(info: OptimizerInfo, drop: Any) -> None:
    game = NetworkGame()
    optimizer = info.cls(game.min_params, game.max_params)
    token = Token()
    alive = weakref.ref(token)
    optimizer.backward(game.loss(token=token))
    del token
    assert alive() is not None
    drop(game, optimizer)
    assert alive() is None


@pairwise(dtype=[torch.float32, torch.float64], penalty=[False, True], clip=[False, True])
@each_two_phase
def test_grad_scaler_loop_equals_unscaled_steps(
    info: OptimizerInfo, dtype: torch.dtype, penalty: bool, clip: bool
) -> None:
    game, twin_game = NetworkGame(dtype), NetworkGame(dtype)
    optimizer, twin = (info.exact(g, lr=0.05) for g in (game, twin_game))
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=2)

    def penalties(game: NetworkGame) -> dict[str, torch.Tensor]:
        return {"max_penalty": flat(game.max_params).square().sum()} if penalty else {}

    for step in range(4):
        optimizer.zero_grad()
        loss = optimizer.backward(game.loss(step), scaler=scaler, **penalties(game))
        assert loss.item() == pytest.approx(twin_game.loss(step).item(), rel=1e-4)
        if clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(game.max_params, 0.05)
        assert scaler.step(optimizer) is not None
        scaler.update()
        twin.backward(twin_game.loss(step), **penalties(twin_game))
        if clip:
            torch.nn.utils.clip_grad_norm_(twin_game.max_params, 0.05)
        twin.step()
        for index, (param, other) in enumerate(
            zip(all_params(optimizer), all_params(twin), strict=True)
        ):
            assert_close(param.detach(), other.detach(), f"step {step}, parameter {index}")
    assert scaler.get_scale() == 4 * SCALE


@pytest.mark.parametrize("where", ["before", "inside"])
@each_two_phase
def test_closure_of_none_takes_the_prepared_step(info: OptimizerInfo, where: str) -> None:
    game, twin_game = QuadraticGame(), QuadraticGame()
    optimizer, twin = info.exact(game), info.exact(twin_game)

    def closure() -> None:
        if where == "inside":
            optimizer.backward(game.loss())

    if where == "before":
        optimizer.backward(game.loss())
    optimizer.step(closure)
    twin.step(twin_game.loss())
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@each_two_phase
def test_backward_of_a_scaled_loss_names_the_scaler(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(game.loss()).backward()
    with pytest.raises(RuntimeError, match=r"`optimizer.backward\(loss, scaler=scaler\)`"):
        scaler.step(optimizer)


@each_two_phase
def test_scaler_that_is_off(info: OptimizerInfo) -> None:
    game, twin_game = NetworkGame(), NetworkGame()
    optimizer, twin = (info.cls(g.min_params, g.max_params, lr=0.05) for g in (game, twin_game))
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    for step in range(3):
        optimizer.zero_grad()
        optimizer.backward(game.loss(step), scaler=scaler)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        twin.step(twin_game.loss(step))
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@pytest.mark.parametrize("after", [0, 2], ids=["first-step", "later-step"])
@each_two_phase
def test_scaler_skips_an_overflow(info: OptimizerInfo, after: int) -> None:
    game = NetworkGame()
    optimizer = info.cls(game.min_params, game.max_params, lr=0.05, warm_start=True)
    for step in range(after):
        optimizer.step(game.loss(step))
    before = snapshot(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    token = Token()
    alive = weakref.ref(token)
    # Some gradient above 2 overflows at this scale; the loss itself is scaled to infinity.
    optimizer.backward(8 * game.loss(after, token), scaler=scaler)
    del token
    assert any(not bool(grad.isfinite().all()) for grad in grads(optimizer))
    assert scaler.step(optimizer) is None
    scaler.update()
    assert scaler.get_scale() == 2.0**126
    assert_same_bits(snapshot(optimizer), before)
    assert alive() is not None
    optimizer.zero_grad()
    assert alive() is None
    optimizer.step()
    assert all(
        torch.equal(snapshot(optimizer)[f"parameter {i}"], before[f"parameter {i}"])
        for i in range(8)
    )


@each_two_phase
def test_loop_goes_on_after_an_overflow(info: OptimizerInfo) -> None:
    game, twin_game = NetworkGame(torch.float64), NetworkGame(torch.float64)
    optimizer, twin = (info.exact(g, lr=0.05) for g in (game, twin_game))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(4):
        optimizer.zero_grad()
        optimizer.backward(game.loss(step), scaler=scaler)
        if step == 1:
            game.max_params[0].grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        if step != 1:
            twin.step(twin_game.loss(step))
    assert scaler.get_scale() == 2.0**9
    for param, other in zip(all_params(optimizer), all_params(twin), strict=True):
        assert_close(param.detach(), other.detach(), info.name)


@each_two_phase
def test_scaler_with_a_closure_is_refused_by_torch(info: OptimizerInfo) -> None:
    game = NetworkGame()
    optimizer = info.cls(game.min_params, game.max_params)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler.step(optimizer, closure=game.loss)


@each_two_phase
def test_penalties_of_a_prepared_step_belong_to_backward(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.backward(game.loss())
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="pass them to `backward`"):
        optimizer.step(min_penalty=game.min_params[0].sum())
    assert_same_bits(snapshot(optimizer), before)


@each_two_phase
def test_failing_backward_leaves_grad_alone(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.backward(game.loss())
    kept = [grad.clone() for grad in grads(optimizer)]
    with pytest.raises(ValueError, match="requires grad"):
        optimizer.backward(game.loss(), max_penalty=torch.tensor(1.0, dtype=torch.float64))
    assert all(torch.equal(grad, old) for grad, old in zip(grads(optimizer), kept, strict=True))


@each_two_phase
def test_players_changed_between_the_phases(info: OptimizerInfo) -> None:
    """A graph for other parameters must not be used, even where the sizes agree."""
    game = QuadraticGame()
    x = game.min_params[0]
    x_twin = torch.zeros_like(x)
    optimizer = info.exact(game)
    optimizer.add_param_group({"params": [x_twin], "player": "min"})
    optimizer.backward(game.loss())
    x.requires_grad_(False)
    x_twin.requires_grad_(True)
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match="Other parameters of the min player require grad now"):
        optimizer.step()
    assert_same_bits(snapshot(optimizer), before)
    # The remedy of the message.
    optimizer.zero_grad()
    optimizer.backward(game.loss() + x_twin.sum())
    optimizer.step()
