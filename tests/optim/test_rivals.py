"""What the papers say of the optimizers that follow the gradient field, in closed form."""

import math
from functools import partial
from types import SimpleNamespace

import field_steps
import pytest
import torch
from dense_steps import assert_close
from field_steps import FieldStep
from games import GeneralGame, NetworkGame, QuadraticGame, flat
from optimizer_registry import OptimizerInfo
from rival_rows import RIVALS
from snapshots import assert_same_bits, snapshot
from torch import Tensor

from compopt import CGD, DirectSolver, Game
from compopt.optim import rivals

each_rival = pytest.mark.parametrize("info", RIVALS, ids=lambda info: info.name)


def leaf(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def radius_after(cls: type, steps: int, alpha: float, **kwargs: object) -> float:
    """Return |(x, y)| after steps of 0.2 from (0.5, 0.5) on ``alpha x y``."""
    x, y = leaf(0.5), leaf(0.5)
    optimizer = cls([x], [y], lr=0.2, **kwargs)
    for _ in range(steps):
        optimizer.step(lambda: alpha * x * y)
    return math.hypot(x.item(), y.item())


# The published comparison, 50 steps: divergence and convergence as far as the digits go.
@pytest.mark.parametrize(
    ("cls", "alpha", "radius"),
    [
        (rivals.LCGD, 1, 0.2657),
        (rivals.LCGD, 3, 1.014e-3),
        (rivals.LCGD, 6, 1.5e5),
        (rivals.SGA, 1, 4.59e-5),
        (rivals.SGA, 3, 0.7071),
        (rivals.SGA, 6, 7.4e39),
        (rivals.OGDA, 1, 0.2601),
        (rivals.OGDA, 3, 18.3),
        (rivals.OGDA, 6, 2.4e18),
    ],
)
def test_bilinear_table(cls: type, alpha: float, radius: float) -> None:
    digits = len(f"{radius:.12e}".split("e")[0].rstrip("0").replace(".", "")) - 1
    assert float(f"{radius_after(cls, 50, alpha):.{digits}e}") == radius


# With a = eta alpha, the factor by which one step multiplies the distance from the solution.
FACTORS = {
    rivals.LCGD: lambda a: math.sqrt(1 - a**2 + a**4),
    rivals.LOLA: lambda a: math.sqrt(1 - a**2 + a**4),
    rivals.ExtraGradient: lambda a: math.sqrt(1 - a**2 + a**4),
    # The adjustment is alpha times the distance, of coefficient 1.
    rivals.SGA: lambda a: math.hypot(1 - 5 * a**2, a),
    rivals.ConsensusOptimization: lambda a: math.hypot(1 - 5 * a**2, a),
}


@pytest.mark.parametrize("alpha", [0.5, 3])
@pytest.mark.parametrize("cls", FACTORS, ids=lambda cls: cls.__name__)
def test_factor_on_the_bilinear_game(cls: type, alpha: float) -> None:
    factor = radius_after(cls, 1, alpha) / math.sqrt(0.5)
    assert factor == pytest.approx(FACTORS[cls](0.2 * alpha), rel=1e-12)


def test_methods_that_coincide_in_zero_sum_games() -> None:
    """SGA with lambda = eta, LOLA, and LCGD; with both of its terms LOLA expects twice the step."""
    ends = {}
    for name, cls, kwargs in (
        ("LCGD", rivals.LCGD, {}),
        ("SGA", rivals.SGA, {"coefficient": 0.05}),
        ("LOLA", rivals.LOLA, {}),
        ("LCGD of twice the step", rivals.LCGD, {"interaction": 0.1}),
        ("LOLA with both terms", rivals.LOLA, {"anticipate": True}),
    ):
        game = NetworkGame(torch.float64)
        optimizer = cls(game.min_params, game.max_params, lr=0.05, **kwargs)
        for batch in range(5):
            optimizer.step(game.loss(batch))
        ends[name] = torch.cat([flat(game.min_params), flat(game.max_params)]).detach()
    assert_close(ends["SGA"], ends["LCGD"], "SGA")
    assert_close(ends["LOLA"], ends["LCGD"], "LOLA")
    assert_close(ends["LOLA with both terms"], ends["LCGD of twice the step"], "both terms")
    assert (ends["LOLA with both terms"] - ends["LOLA"]).abs().max() > 1e-6


def test_points_ahead_of_past_extragradient_are_the_iterates_of_ogda() -> None:
    games = QuadraticGame(), QuadraticGame()
    past = rivals.PastExtraGradient(games[0].min_params, games[0].max_params, lr=0.05)
    ahead = []

    def closure() -> Tensor:
        ahead.append(torch.cat([games[0].vector("min"), games[0].vector("max")]).detach())
        return games[0].loss()

    # Past extragradient moves its point ahead twice in the first step.
    past.step(closure)
    twice = rivals.OGDA(games[1].min_params, games[1].max_params, lr=0.05)
    for _ in range(6):
        assert_close(
            ahead[-1],
            torch.cat([games[1].vector("min"), games[1].vector("max")]).detach(),
            "point ahead",
        )
        twice.step(games[1].loss)
        past.step(closure)


def test_lcgd_approaches_cgd_as_the_step_vanishes() -> None:
    def distance(lr: float) -> float:
        ends = []
        for make in (
            lambda g, lr=lr: rivals.LCGD(g.min_params, g.max_params, lr=lr),
            lambda g, lr=lr: CGD(g.min_params, g.max_params, lr=lr, solver=DirectSolver()),
        ):
            game = QuadraticGame()
            make(game).step(game.loss())
            ends.append(torch.cat([game.vector("min"), game.vector("max")]).detach())
        return (ends[0] - ends[1]).norm().item()

    # The first term left out of the Neumann series is of third order in the step.
    assert distance(1e-3) / distance(5e-4) == pytest.approx(8, rel=0.02)


def general_lola(game: GeneralGame, s: FieldStep) -> Tensor:
    """Return LOLA's move from its definition, differentiating through the opponent's step."""
    xi = s.xi(s.w)
    cross = torch.cat(
        [
            (game.hessians[1] @ s.w + game.linear[1])[:4],
            (game.hessians[0] @ s.w + game.linear[0])[4:],
        ]
    )
    shaping = torch.cat(
        [
            game.hessians[1][:4, 4:] @ (s.lr * cross)[4:],
            game.hessians[0][4:, :4] @ (s.lr * cross)[:4],
        ]
    )
    return -s.lr * (xi - shaping)


@each_rival
def test_general_sum_steps_are_the_closed_form(info: OptimizerInfo) -> None:
    game = GeneralGame()
    optimizer = info.cls([game.x], [game.y], lr=(0.05, 0.02))
    memory = {key: torch.zeros(7, dtype=torch.float64) for key in info.state_keys}
    move = partial(general_lola, game) if info.name == "LOLA" else info.move
    group = optimizer.param_groups[0]

    def option(name: str) -> Tensor:
        if name == "lr":
            return torch.tensor([0.05] * 4 + [0.02] * 3, dtype=torch.float64)
        value = group["betas"][name == "beta2"] if "beta" in name else group[name]
        return torch.full((7,), math.nan if value is None else value, dtype=torch.float64)

    for number in range(3):
        w = game.w().detach()
        step = FieldStep(
            w=w,
            raw=game.xi,
            xi=game.xi,
            jacobian=game.jacobian(),
            is_min=torch.arange(7) < 4,
            option=option,
            memory=memory,
            num_steps=torch.full((7,), float(number), dtype=torch.float64),
            optimizer=SimpleNamespace(align=False, anticipate=False),
        )
        expected = w + move(step)
        returned = optimizer.step(game.losses if number else game.as_game)
        assert len(returned) == 2
        assert_close(game.w().detach(), expected, f"{info.name}, step {number}")


@each_rival
def test_opposite_losses_are_the_zero_sum_game(info: OptimizerInfo) -> None:
    game, twin = NetworkGame(torch.float64), NetworkGame(torch.float64)
    optimizer, other = info.build(game, lr=0.05), info.build(twin, lr=0.05)
    for batch in range(3):
        optimizer.step(lambda batch=batch: (game.loss(batch), -game.loss(batch)))
        other.step(partial(twin.loss, batch))
    for param, expected in zip(
        [*game.min_params, *game.max_params], [*twin.min_params, *twin.max_params], strict=True
    ):
        assert_close(param.detach(), expected.detach(), info.name)


def test_alignment_turns_away_from_an_unstable_point() -> None:
    """At a saddle point with the players on the wrong sides, the sign of lambda changes."""
    sign = {}
    for name, curvature in (("stable", 1.0), ("unstable", -1.0)):
        x, y = leaf(0.5), leaf(0.2)
        step = rivals.SGA([x], [y], lr=0.1, align=True)
        plain = 0.1 * torch.tensor([curvature * 0.5 + 3 * 0.2, curvature * 0.2 - 3 * 0.5])
        step.step(curvature * (x**2 - y**2) / 2 + 3 * x * y)
        sign[name] = (0.5 - x.item() - plain[0].item()) / (0.1 * 3 * (curvature * -0.2 + 3 * 0.5))
    assert sign == {"stable": pytest.approx(1, rel=1e-5), "unstable": pytest.approx(-1, rel=1e-5)}


@pytest.mark.parametrize(
    "info", [info for info in RIVALS if info.needs_closure], ids=lambda info: info.name
)
def test_error_at_the_second_point_changes_nothing(info: OptimizerInfo) -> None:
    game = NetworkGame()
    optimizer = info.build(game, lr=0.05)
    optimizer.step(game.loss)
    before = snapshot(optimizer)
    calls = []

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == (1 if info.name == "PastExtraGradient" else 2):
            raise KeyError("batch")
        return game.loss()

    with pytest.raises(KeyError, match="batch"):
        optimizer.step(closure)
    assert_same_bits(snapshot(optimizer), before)


@pytest.mark.parametrize(
    "info", [info for info in RIVALS if info.needs_closure], ids=lambda info: info.name
)
def test_a_loss_is_not_enough_for_a_second_point(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.build(game)
    for loss in (game.loss(), Game(game.loss()), [game.loss()]):
        with pytest.raises(TypeError, match=r"needs a closure.*`step\(lambda: loss_fn\(batch\)\)`"):
            optimizer.step(loss)
    assert not optimizer.state


def test_penalties_are_evaluated_at_both_points() -> None:
    game, twin = QuadraticGame(), QuadraticGame()
    twin.p = twin.p + torch.eye(5, dtype=torch.float64)
    optimizer = rivals.ExtraGradient(game.min_params, game.max_params, lr=0.05)
    other = rivals.ExtraGradient(twin.min_params, twin.max_params, lr=0.05)
    for _ in range(3):
        optimizer.step(lambda: Game(game.loss(), game.vector("min").square().sum() / 2))
        other.step(twin.loss)
    assert_close(game.vector("min").detach(), twin.vector("min").detach(), "penalized player")
    assert_close(game.vector("max").detach(), twin.vector("max").detach(), "opponent")


def test_simultaneous_descent_converges_to_a_point_that_is_no_nash_equilibrium() -> None:
    """x^2 + 10 x y + y^2 with step sizes 0.09 and 0.01: spectral radius 0.9625."""
    jacobian = torch.tensor([[2.0, 10.0], [-10.0, -2.0]], dtype=torch.float64)
    rates = torch.tensor([0.09, 0.01], dtype=torch.float64)
    factor = torch.eye(2, dtype=torch.float64) - rates[:, None] * jacobian
    radius = torch.linalg.eigvals(factor).abs().max().item()
    assert radius == pytest.approx(math.sqrt(0.9264), rel=1e-12)
    x, y = leaf(0.3), leaf(-0.2)
    # LEAD without momentum and coupling is simultaneous descent-ascent.
    optimizer = rivals.LEAD([x], [y], lr=(0.09, 0.01), coupling=0.0)
    for _ in range(400):
        optimizer.step(x**2 + 10 * x * y + y**2)
    assert math.hypot(x.item(), y.item()) < 10 * radius**400


def test_formulas_are_all_used() -> None:
    formulas = {
        value
        for value in vars(field_steps).values()
        if callable(value) and getattr(value, "__module__", "") == field_steps.__name__
    }
    assert formulas - {FieldStep} == {info.move for info in RIVALS}
