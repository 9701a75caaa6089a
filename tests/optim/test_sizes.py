"""Gradients of any size that their dtype holds, through whole steps."""

from typing import Any

import pytest
import torch
from covering import pairwise
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor

from compopt import ACGD, CGD, GMRES, ConjugateGradient, DirectSolver, StepError
from compopt.distributed import Placement, Sharded
from compopt.optim import PolymatrixCGD
from compopt.solvers import Status

# Powers of two near 1e-25, 1e20, 1e-200 and 1e155.
SIZES = [
    *((torch.float32, exponent) for exponent in (-83, 66, 100)),
    *((torch.float64, exponent) for exponent in (-664, 515, 900)),
]
LARGE_SQUARES = {
    "float32": (torch.float32, 66),
    "float64": (torch.float64, 515),
    "bfloat16": (torch.bfloat16, 66),
}
ALL_SIZES = pytest.mark.parametrize(("dtype", "exponent"), SIZES, ids=str)


class Game:
    """Bilinear around wherever the players are, with gradients of the size that is asked for.

    The loss itself is zero, and so is finite whatever the size.
    """

    def __init__(self, dtype: torch.dtype, size: float) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.x, self.y = (torch.zeros(n, dtype=dtype, requires_grad=True) for n in (5, 4))
        self.mixed, self.other = 2 * random(5, 4), 2 * random(5, 4)
        self.a, self.b = size * random(5), size * random(4)

    def loss(self) -> Tensor:
        x, y = self.x - self.x.detach(), self.y - self.y.detach()
        return self.a @ x + self.b @ y + x @ self.mixed @ y

    def pair(self) -> tuple[Tensor, Tensor]:
        x, y = self.x - self.x.detach(), self.y - self.y.detach()
        return self.loss(), self.a @ x - self.b @ y - x @ self.other @ y


CG = ConjugateGradient(rtol=1e-4)
WAYS: dict[str, dict[str, Any]] = {
    "cold": {"solver": CG},
    "warm": {"solver": CG, "warm_start": True},
    "predicted": {"solver": ConjugateGradient(rtol=5e-2)},
    "min": {"solver": CG, "solve_for": "min"},
    "direct": {"solver": DirectSolver()},
    "gmres": {"solver": GMRES(rtol=1e-4)},
    "pair": {"solver": GMRES(rtol=1e-4), "form": "pair"},
    "pair, warm": {"solver": GMRES(rtol=1e-4), "form": "pair", "warm_start": True},
    "pair, direct": {"solver": DirectSolver(), "form": "pair"},
    "two-phase": {"solver": CG, "form": "backward"},
    "interaction": {"solver": CG, "interaction": 0.2},
    "captured": {"solver": ConjugateGradient(rtol=0.0, max_iter=3), "capturable": True},
    "skip": {"solver": CG, "on_failure": "skip"},
}


def steps(
    dtype: torch.dtype, size: float, *, form: str = "loss", **options: Any
) -> tuple[CGD, list[tuple[int, Status, bool]]]:
    game = Game(dtype, size)
    optimizer = CGD([game.x], [game.y], lr=0.25, **options)
    reports = []
    for _ in range(3):
        if form == "backward":
            optimizer.backward(game.loss())
            optimizer.step()
        else:
            optimizer.step(getattr(game, form)())
        report = optimizer.last_step
        reports.append((report.num_iter, report.status, report.taken))
    return optimizer, reports


@pytest.mark.parametrize(
    ("way", "dtype", "exponent"),
    [
        pytest.param(way, *size, id=f"{name}-{size}")
        for number, (name, way) in enumerate(WAYS.items())
        for size in (SIZES if name == "cold" else SIZES[number % 6 : number % 6 + 1])
    ],
)
def test_steps_of_cgd_are_those_of_size_one(
    way: dict[str, Any], dtype: torch.dtype, exponent: int
) -> None:
    size = 2.0**exponent
    one, reports = steps(dtype, 1.0, **way)
    large, large_reports = steps(dtype, size, **way)
    assert large_reports == reports
    assert all(taken for _, _, taken in reports)
    for param, other in zip(all_params(large), all_params(one), strict=True):
        assert other.any()
        assert torch.equal(param, other * size)
    assert large.last_step.relative_residual == one.last_step.relative_residual
    if exponent > 0:
        ratio = large.last_step.grad_norms["min"] / one.last_step.grad_norms["min"]
        assert ratio == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float32, 66), (torch.float64, 515)])
@pytest.mark.parametrize("form", ["loss", "pair"])
def test_clipping_takes_gradients_of_any_size(form: str, dtype: torch.dtype, exponent: int) -> None:
    """They point where those of size one point."""
    options = {"solver": DirectSolver(), "max_grad_norm": 1e-3, "form": form}
    one, _ = steps(dtype, 1.0, **options)
    large, reports = steps(dtype, 2.0**exponent, **options)
    assert all(taken for _, _, taken in reports)
    for param, other in zip(all_params(large), all_params(one), strict=True):
        torch.testing.assert_close(param, other, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("dtype", "exponent"), [SIZES[0], SIZES[4]], ids=str)
@pytest.mark.parametrize("solver", [GMRES(rtol=1e-4), DirectSolver()], ids=["gmres", "direct"])
def test_steps_of_many_players_are_those_of_size_one(
    solver: Any, dtype: torch.dtype, exponent: int
) -> None:
    found = []
    for size in (1.0, 2.0**exponent):
        game = Game(dtype, size)
        optimizer = PolymatrixCGD([[game.x], [game.y]], lr=0.25, solver=solver)
        for _ in range(3):
            optimizer.step(list(game.pair()))
        solution = optimizer.last_step
        found.append((game, solution.num_iter, solution.status))
    (one, *how), (large, *same) = found
    assert how == same
    assert torch.equal(large.x, one.x * 2.0**exponent)
    assert torch.equal(large.y, one.y * 2.0**exponent)


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float32, -83), (torch.float64, -664)])
def test_small_gradients_in_adaptive_steps(dtype: torch.dtype, exponent: int) -> None:
    """Beside ``eps`` they do not count, so that moves are in proportion to them."""
    moves = []
    for power in (exponent, -50):
        game = Game(dtype, 2.0**power)
        optimizer = ACGD([game.x], [game.y], lr=1e-6, solver=CG)
        optimizer.step(game.loss())
        assert optimizer.last_step.taken
        moves.append(torch.cat([game.x, game.y]).detach() * 2.0**-power)
    torch.testing.assert_close(*moves)


@pairwise(
    size=LARGE_SQUARES,
    who=["both", "max"],
    failure={
        "fallback": ("fallback", False),
        "skip": ("skip", False),
        "raise": ("raise", False),
        "captured-fallback": ("fallback", True),
        "captured-skip": ("skip", True),
    },
)
def test_gradients_whose_squares_overflow_leave_adaptive_state_alone(
    size: tuple[torch.dtype, int], who: str, failure: tuple[Any, bool]
) -> None:
    (dtype, exponent), (on_failure, capturable) = size, failure
    """An average that is infinite once stays so, and its parameter would never move again."""
    game = Game(dtype, 1.0)
    solver = ConjugateGradient(rtol=0.0, max_iter=2) if capturable else CG
    optimizer = ACGD(
        [game.x], [game.y], solver=solver, on_failure=on_failure, capturable=capturable
    )
    optimizer.step(game.loss())
    before = snapshot(optimizer)
    game.b.mul_(2.0**exponent)
    words = "step sizes come from squared gradients, which are not finite"
    options = {} if who == "both" else {"player": who}
    if capturable:
        optimizer.step(game.loss(), **options)
    elif on_failure == "raise":
        with pytest.raises(StepError, match=words):
            optimizer.step(game.loss(), **options)
    else:
        with pytest.warns(match=words):
            optimizer.step(game.loss(), **options)
    if who == "both":
        assert not optimizer.last_step.taken
        assert "step failed" in str(optimizer.last_step)
        assert words in optimizer.last_step.failure()
        norm = game.b.double().div(2.0**exponent).norm() * 2.0**exponent
        assert optimizer.last_step.grad_norms["max"] == pytest.approx(float(norm), rel=1e-6)
    assert_same_bits(snapshot(optimizer), before)
    # The remedies of the message.
    game.b.mul_(2.0**-exponent)
    optimizer.step(game.loss())
    assert optimizer.last_step.taken
    game.b.mul_(2.0**exponent)
    optimizer.param_groups[1]["max_grad_norm"] = 1.0
    before = game.y.detach().clone()
    optimizer.step(game.loss(), **options)
    assert optimizer.last_step.taken
    assert game.y.isfinite().all()
    assert not torch.equal(game.y, before)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize(("dtype", "exponent"), SIZES)
def test_one_player_moves_by_gradients_of_any_size(
    dtype: torch.dtype, exponent: int, capturable: bool
) -> None:
    solver = ConjugateGradient(rtol=0.0, max_iter=2)
    moves = []
    for power in (0, exponent):
        game = Game(dtype, 2.0**power)
        optimizer = CGD([game.x], [game.y], lr=0.25, solver=solver, capturable=capturable)
        optimizer.step(game.loss(), player="max")
        assert game.y.any()
        moves.append(game.y.detach() * 2.0**-power)
    assert torch.equal(*moves)


@pytest.mark.parametrize("capturable", [False, True])
def test_half_precision_has_no_gradient_that_is_too_large(capturable: bool) -> None:
    """Squares are those of float32."""
    game = Game(torch.float16, 1.0)
    game.a.fill_(6e4)
    solver = ConjugateGradient(rtol=0.0, max_iter=2)
    optimizer = ACGD([game.x], [game.y], solver=solver, capturable=capturable)
    optimizer.step(game.loss())
    assert optimizer.last_step.taken
    assert game.x.isfinite().all()
    assert game.x.any()


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float32, 66), (torch.float64, 515)])
def test_squares_that_overflow_leave_the_state_of_many_players_alone(
    dtype: torch.dtype, exponent: int
) -> None:
    game = Game(dtype, 1.0)
    optimizer = PolymatrixCGD([[game.x], [game.y]], lr=0.01, beta=0.9)
    optimizer.step(list(game.pair()))
    before = snapshot(optimizer)
    game.a.mul_(2.0**exponent)
    with pytest.warns(match="squared gradients, which are not finite"):
        optimizer.step(list(game.pair()))
    assert_same_bits(snapshot(optimizer), before)


@pytest.mark.parametrize("is_sharded", [False, True], ids=["", "sharded"])
@ALL_SIZES
def test_norms_of_any_size(dtype: torch.dtype, exponent: int, is_sharded: bool) -> None:
    placement: Any = Placement()
    if is_sharded:
        # One process that has all parts.
        placement = Sharded.__new__(Sharded)
        placement.total = lambda partials: partials
    size = 2.0**exponent
    vectors = {"min": torch.tensor([3.0, 0, 4], dtype=dtype), "max": torch.zeros(2, dtype=dtype)}
    vectors["min"] *= size
    norms = placement.norms(vectors, of_any_size=True)
    assert float(norms["min"]) == 5 * size
    assert float(norms["max"]) == 0
    vectors["max"][1] = torch.inf
    assert not placement.norms(vectors, of_any_size=True)["max"].isfinite()
