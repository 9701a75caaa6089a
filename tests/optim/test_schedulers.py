import io
from functools import partial
from typing import Any

import pytest
import torch
from covering import one_each
from dense_steps import DenseReference, assert_dense_step
from games import NetworkGame, QuadraticGame
from optimizer_registry import KINDS, OPTIMIZERS, OptimizerInfo, each_kind
from schedulers import NUM_STEPS, SCHEDULERS, advance
from snapshots import assert_same_bits, snapshot
from torch.optim import lr_scheduler

LEARNING_RATES = {
    "pair": lambda: (0.1, 0.03),
    "tensor": lambda: torch.tensor(0.1, dtype=torch.float64),
}

# Schedulers write `group["lr"]` and know nothing of the class; that every class reads it at each
# step is shown in test_every_optimizer.py.
ADAPTIVE = next(info for info in OPTIMIZERS if info.name == "ACGD")

each_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


def sgd_of_two_groups(game: QuadraticGame, lr: Any) -> torch.optim.SGD:
    lrs = lr if isinstance(lr, tuple) else (lr, lr)
    lrs = [lr.clone() if isinstance(lr, torch.Tensor) else lr for lr in lrs]
    return torch.optim.SGD(
        [
            {"params": game.min_params, "lr": lrs[0]},
            {"params": game.max_params, "lr": lrs[1]},
        ],
        lr=0.0,
    )


def test_no_scheduler_of_torch_is_forgotten() -> None:
    public = {
        name
        for name, value in vars(lr_scheduler).items()
        if isinstance(value, type)
        and issubclass(value, lr_scheduler.LRScheduler)
        and not name.startswith("_")
    }
    assert public | set(lr_scheduler.__all__) == set(SCHEDULERS) - {"SWALR"} | {"LRScheduler"}


@pytest.mark.parametrize(("name", "lr_kind"), one_each(list(SCHEDULERS), list(LEARNING_RATES)))
def test_both_players_follow_the_schedule(name: str, lr_kind: str) -> None:
    info = ADAPTIVE
    game, lr = QuadraticGame(), LEARNING_RATES[lr_kind]()
    optimizer = info.exact(game, lr=lr)
    sgd = sgd_of_two_groups(game, lr)
    scheduler, sgd_scheduler = SCHEDULERS[name](optimizer), SCHEDULERS[name](sgd)
    reference = DenseReference(info, game)
    seen: list[set[float]] = [set(), set()]
    for step in range(NUM_STEPS):
        # Far fewer dense comparisons than steps keep the test fast; schedules change early.
        if step < 10 or step % 10 == 0:
            assert_dense_step(info, optimizer, reference)
        else:
            reference.next_params(optimizer)
            optimizer.step(game.loss)
        sgd.step()
        advance(scheduler, 1.0)
        advance(sgd_scheduler, 1.0)
        for group, sgd_group, values in zip(
            optimizer.param_groups, sgd.param_groups, seen, strict=True
        ):
            assert float(group["lr"]) == float(sgd_group["lr"]), f"{name}, step {step}"
            values.add(float(group["lr"]))
    assert all(len(values) > 1 for values in seen), f"{name} never changed a learning rate: {seen}"


@each_scheduler
def test_resume_with_a_scheduler_is_bitwise(name: str) -> None:
    def build() -> tuple[NetworkGame, torch.optim.Optimizer, Any]:
        game = NetworkGame()
        optimizer = ADAPTIVE.build(game, lr=(0.05, 0.02), warm_start=True)
        return game, optimizer, SCHEDULERS[name](optimizer)

    def run(game: NetworkGame, optimizer: Any, scheduler: Any, steps: range) -> None:
        for step in steps:
            optimizer.step(partial(game.loss, step))
            advance(scheduler, 1.0)

    straight = build()
    run(*straight, range(12))
    first = build()
    run(*first, range(7))
    file = io.BytesIO()
    networks = [first[0].generator.state_dict(), first[0].critic.state_dict()]
    # Older torch puts a function, which is no plain value, into the state of SWALR.
    state = {key: value for key, value in first[2].state_dict().items() if not callable(value)}
    torch.save([networks, first[1].state_dict(), state], file)
    file.seek(0)
    networks, optimizer_state, scheduler_state = torch.load(file, weights_only=True)
    second = build()
    second[0].generator.load_state_dict(networks[0])
    second[0].critic.load_state_dict(networks[1])
    second[2].load_state_dict(scheduler_state)
    second[1].load_state_dict(optimizer_state)
    run(*second, range(7, 12))
    assert_same_bits(snapshot(second[1]), snapshot(straight[1]))
    lrs = [[float(group["lr"]) for group in run[1].param_groups] for run in (second, straight)]
    assert lrs[0] == lrs[1]


@each_kind
def test_tensor_lr_is_copied_for_each_group(info: OptimizerInfo) -> None:
    game, lr = QuadraticGame(), torch.tensor(0.1, dtype=torch.float64)
    optimizer = info.exact(game, lr=lr)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] is not rates[1]
    assert all(rate is not lr for rate in rates)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    optimizer.step(game.loss)
    scheduler.step()
    assert [group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True)]
    assert [float(rate) for rate in rates] == [0.05, 0.05]
    assert float(lr) == 0.1


@each_kind
def test_scheduler_notices_a_step(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    scheduler = lr_scheduler.StepLR(info.exact(game), step_size=1)
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step"):
        scheduler.step()
    optimizer = info.exact(game)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1)
    optimizer.step(game.loss)
    scheduler.step()


@pytest.mark.parametrize(("info", "name"), one_each(OPTIMIZERS, ["CyclicLR", "OneCycleLR"]))
def test_cycling_a_momentum_works_where_there_is_one(info: OptimizerInfo, name: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    arguments = {
        "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1},
        "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
    }[name]
    if not info.has_momentum:
        with pytest.raises(ValueError, match="momentum"):
            getattr(lr_scheduler, name)(optimizer, **arguments)
        return
    scheduler = getattr(lr_scheduler, name)(optimizer, **arguments)
    reference = DenseReference(info, game)
    for _ in range(4):
        assert_dense_step(info, optimizer, reference)
        scheduler.step()


@pytest.mark.parametrize(("info", "start"), one_each(KINDS, [0.1, 0.3, 0.7]))
def test_a_schedule_down_to_zero_survives_rounding(info: OptimizerInfo, start: float) -> None:
    """The recursive form of LinearLR ends at learning rates such as -1e-18."""
    game = QuadraticGame()
    optimizer = info.exact(game)
    scheduler = lr_scheduler.LinearLR(optimizer, start_factor=start, end_factor=0, total_iters=10)
    for _ in range(12):
        optimizer.step(game.loss)
        scheduler.step()
    before = [param.detach().clone() for param in game.min_params]
    optimizer.step(game.loss)
    for param, old in zip(game.min_params, before, strict=True):
        torch.testing.assert_close(param.detach(), old, rtol=0, atol=1e-12)
