"""What is said of steps that fail, do not converge, or are hardly meant."""

import math
import warnings
from typing import Any

import pytest
import torch
from covering import one_each, pairwise
from games import GeneralGame, NetworkGame, QuadraticGame
from torch import Tensor, nn

from compopt import (
    ACGD,
    CGD,
    GMRES,
    ConjugateGradient,
    ConvergenceWarning,
    DirectSolver,
    Game,
    StepError,
    StepWarning,
)
from compopt.optim import PolymatrixCGD
from compopt.optim.rivals import LCGD, LEAD, LOLA, SGA, ConsensusOptimization
from compopt.solvers import Solution, Status

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ["the loss", "the min loss", "the max loss"] + [
    f"the {what} of the {player} player"
    for what in ("gradient", "move")
    for player in ("min", "max")
]


def named_in(message: str) -> set[str]:
    """Return what the second sentence says is not finite."""
    sentence = message.split(". ")[1].lower()
    return {name for name in NAMES if name in sentence}


def message_of(optimizer: Any, *args: Any, **kwargs: Any) -> str:
    """Return what a failed step says; it leaves the players as they are."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = [param.clone() for param in params]
    with pytest.raises(StepError) as caught:
        optimizer.step(*args, **kwargs)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    return str(caught.value)


LARGE = 2.0**80


class Linear:
    """Players of one number each; the loss is given as a function of both."""

    def __init__(self, cls: Any = CGD, **options: Any) -> None:
        self.x, self.y = (torch.ones(1, requires_grad=True) for _ in range(2))
        self.optimizer = cls([self.x], [self.y], on_failure="raise", **options)

    def moving(self) -> tuple[Tensor, Tensor]:
        """Return the players less themselves: zeros, to be differentiated."""
        return self.x - self.x.detach(), self.y - self.y.detach()


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf], ids=str)
def test_a_loss_that_is_not_finite_is_named(value: float) -> None:
    now = Linear()
    message = message_of(now.optimizer, (now.x * now.y).sum() + value)
    assert named_in(message) == {"the loss"}
    assert "within the tolerance" not in message


@pytest.mark.parametrize("which", ["min", "max"])
def test_the_loss_of_a_pair_that_is_not_finite_is_named(which: str) -> None:
    now = Linear(solver=GMRES())
    good = (now.x * now.y).sum()
    losses = {"min": good, "max": -good}
    losses[which] = losses[which] + math.inf
    assert named_in(message_of(now.optimizer, tuple(losses.values()))) == {f"the {which} loss"}


@pytest.mark.parametrize("player", ["min", "max"])
@pytest.mark.parametrize("solver", [ConjugateGradient(), GMRES(), DirectSolver()], ids=str)
def test_a_gradient_that_is_not_finite_is_named(solver: Any, player: str) -> None:
    now = Linear(solver=solver)
    x, y = now.moving()
    penalty = math.inf * {"min": x, "max": y}[player].sum()
    loss = (now.x * now.y).sum()
    game = Game(loss, **{f"{player}_penalty": penalty})
    assert f"the gradient of the {player} player" in named_in(message_of(now.optimizer, game))


class Huge(DirectSolver):
    """Says that it has solved, with a solution that is not finite."""

    def solve(self, *args: Any, **kwargs: Any) -> Solution:
        solution = super().solve(*args, **kwargs)
        return Solution(**{**vars(solution), "value": solution.value * math.inf})


def test_a_move_that_is_not_finite_is_named() -> None:
    now = Linear(solver=Huge(), solve_for="min")
    message = message_of(now.optimizer, (now.x * now.y).sum())
    # The other player replies to it.
    assert named_in(message) == {f"the move of the {player} player" for player in ("min", "max")}
    assert "learning rates" in message


def test_squares_that_overflow_are_named_and_nothing_else() -> None:
    now = Linear(ACGD)
    x, y = now.moving()
    message = message_of(now.optimizer, (LARGE * x + x * y).sum())
    assert named_in(message) == set()
    assert "squared gradients, which are not finite" in message
    # With the remedies of the message.
    for options in ({}, {"max_grad_norm": 1.0}):
        now = Linear(ACGD, **options)
        x, y = now.moving()
        now.optimizer.step(((LARGE if options else 1.0) * x + x * y + y).sum())
        assert now.optimizer.last_step.taken


def test_many_players_name_their_losses() -> None:
    game = GeneralGame()
    optimizer = PolymatrixCGD([[game.x], [game.y]], lr=0.1)
    first, second = game.losses()
    with pytest.warns(StepWarning, match=r"Losses\[1\] is not finite"):
        optimizer.step([first, second + math.inf])


def shared(x: Tensor, y: Tensor) -> Tensor:
    return (3 * x * y + 0.5 * x).sum()


def scalars() -> list[Tensor]:
    return [torch.ones(1, requires_grad=True) for _ in range(2)]


PAIRS = {
    "cgd": lambda x, y, lr: CGD([x], [y], lr=lr, solver=GMRES()),
    "direct": lambda x, y, lr: CGD([x], [y], lr=lr, solver=DirectSolver()),
    "other player": lambda x, y, lr: CGD([x], [y], lr=lr, solver=GMRES(), solve_for="min"),
    "interaction": lambda x, y, lr: CGD([x], [y], lr=0.01, interaction=lr, solver=GMRES()),
    "polymatrix": lambda x, y, lr: PolymatrixCGD([[x], [y]], lr=lr),
}


@pytest.mark.parametrize(("build", "lr"), one_each(PAIRS, [0.33, 0.335]))
def test_a_nearly_singular_system_of_two_losses_is_told_once(build: Any, lr: float) -> None:
    x, y = scalars()
    optimizer = build(x, y, lr)
    with pytest.warns(StepWarning, match="nearly singular.*`min_penalty`") as caught:
        optimizer.step([shared(x, y)] * 2 if isinstance(optimizer, PolymatrixCGD) else (
            shared(x, y), shared(x, y)
        ))  # fmt: skip
    assert caught[0].filename == __file__
    moved = torch.cat([x, y]).detach() - 1
    plain = (0.01 if "interaction=0.33" in repr(optimizer) else lr) * torch.tensor([3.5, 3.0])
    said = float(str(caught[0].message).split()[3])
    if not isinstance(optimizer, CGD) or optimizer.param_groups[0]["interaction"] is None:
        assert said == pytest.approx(float(moved.norm() / plain.norm()), rel=5e-3)
    assert said > 4
    with torch.no_grad():
        x.fill_(1.0)
        y.fill_(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = (shared(x, y), shared(x, y))
        optimizer.step(list(pair) if isinstance(optimizer, PolymatrixCGD) else pair)


# Above, below, and below by little.
@pytest.mark.parametrize(("build", "lr"), one_each(PAIRS, [0.5, 0.01, 0.3]))
def test_other_systems_of_two_losses_are_not(build: Any, lr: float) -> None:
    x, y = scalars()
    optimizer = build(x, y, lr)
    pair = (shared(x, y), shared(x, y))
    optimizer.step(list(pair) if isinstance(optimizer, PolymatrixCGD) else pair)


def test_the_remedy_for_a_shared_term_is_silent() -> None:
    """The networks that lower the same term as one player, the term as its penalty."""
    x, y = scalars()
    critic = torch.ones(1, requires_grad=True)
    optimizer = CGD([x, y], [critic], lr=0.33)
    optimizer.step((critic * (x - y)).sum(), min_penalty=shared(x, y))


@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_no_pair_of_a_usual_gan_is_told(cls: Any) -> None:
    game = NetworkGame()
    optimizer = cls(game.min_params, game.max_params, lr=0.1, solver=GMRES())
    for batch in range(8):
        fake, real = game.critic(game.generator(game.noise[batch])), game.critic(game.real[batch])
        softplus = nn.functional.softplus
        optimizer.step((softplus(-fake).mean(), softplus(fake).mean() + softplus(-real).mean()))


def apart(game: NetworkGame, how: str) -> Tensor:
    """Return a loss in which the players do not interact."""
    fake = game.generator(game.noise[0])
    if how == "frozen":
        game.critic.requires_grad_(False)
        score = game.critic(fake).mean()
        game.critic.requires_grad_(True)
    elif how == "no_grad":
        with torch.no_grad():
            reward = game.critic(fake)
        score = (reward * fake).mean()
    elif how == "zero":
        score = fake.mean() + 0 * game.critic(fake).mean()
    else:
        score = fake.mean()
    return game.critic(game.real[0]).mean() - score


@pairwise(
    solve_for=["min", "max"],
    solver={"cg": ConjugateGradient(), "gmres": GMRES()},
    how=["frozen", "no_grad", "zero", "apart"],
)
def test_players_that_do_not_interact_are_told_once(solve_for: str, solver: Any, how: str) -> None:
    game = NetworkGame()
    optimizer: Any = CGD(
        game.min_params, game.max_params, lr=0.1, solver=solver, solve_for=solve_for
    )
    words = "The players do not interact: this is gradient descent-ascent"
    with pytest.warns(StepWarning, match=words) as caught:
        optimizer.step(apart(game, how))
    assert caught[0].filename == __file__
    optimizer.step(apart(game, how))
    # The remedy, for who means it.
    meant = CGD(game.min_params, game.max_params, lr=0.1, interaction=0)
    meant.step(apart(game, how))


@pytest.mark.parametrize("how", ["frozen", "no_grad", "zero", "apart"])
@pytest.mark.parametrize("cls", [SGA, LCGD, LOLA, ConsensusOptimization, LEAD])
def test_rivals_tell_of_players_that_do_not_interact_once(cls: Any, how: str) -> None:
    game, meant = NetworkGame(), NetworkGame()
    optimizer: Any = cls(game.min_params, game.max_params, lr=0.1)
    with pytest.warns(StepWarning, match="All entries of the first mixed products") as caught:
        optimizer.step(apart(game, how))
    assert caught[0].filename == __file__
    optimizer.step(apart(game, how))
    # Players that interact are not called apart, nor those at a stationary point.
    cls(meant.min_params, meant.max_params, lr=0.1).step(meant.loss(0))
    x, y = (torch.zeros(2, requires_grad=True) for _ in range(2))
    cls([x], [y], lr=0.1).step((x * y).sum())


def test_many_players_that_do_not_interact_are_told_once() -> None:
    params = [torch.ones(2, requires_grad=True) for _ in range(3)]
    optimizer = PolymatrixCGD([[param] for param in params])
    with pytest.warns(StepWarning, match="The players do not interact") as caught:
        optimizer.step([param.square().sum() for param in params])
    assert caught[0].filename == __file__
    optimizer.step([param.square().sum() for param in params])
    # Products are zero likewise where the graphs lead to other players.
    linked = PolymatrixCGD([[param] for param in params])
    everyone = sum(param.sum() for param in params)
    with pytest.warns(StepWarning, match="All entries of the first mixed products are zero"):
        linked.step([param.square().sum() + everyone for param in params])
    # One loss that depends on one other player is interaction.
    others = PolymatrixCGD([[param] for param in params])
    first, second, third = params
    others.step([(first * second).sum(), second.square().sum(), third.square().sum()])


def test_a_rate_of_zero_does_not_look_like_players_apart() -> None:
    for lr in ((0.1, 0.0), (0.0, 0.1)):
        for solve_for in ("min", "max"):
            game = QuadraticGame()
            options: Any = {"lr": lr, "solve_for": solve_for}
            CGD(game.min_params, game.max_params, **options).step(game.loss())


def test_interaction_that_rounding_swallows_does_not_look_like_players_apart() -> None:
    game = NetworkGame()
    CGD(game.min_params, game.max_params, lr=1e-9).step(game.loss(0))


def test_a_stationary_point_does_not_look_like_players_apart() -> None:
    x, y = (torch.zeros(2, requires_grad=True) for _ in range(2))
    CGD([x], [y], lr=0.1).step((x * y).sum())


UNSOLVED = {
    "too few": (GMRES(rtol=1e-10, max_iter=1), Status.MAX_ITER),
    "stagnation": (GMRES(rtol=1e-25, max_iter=200, restart=2), Status.STAGNATED),
}


@pytest.mark.parametrize(("solver", "status"), UNSOLVED.values(), ids=UNSOLVED)
@pytest.mark.parametrize("cls", [CGD, PolymatrixCGD])
def test_a_solve_that_did_not_converge_is_told_once_and_taken(
    cls: Any, solver: Any, status: Status
) -> None:
    game = GeneralGame()
    many = cls is PolymatrixCGD
    players = [[game.x], [game.y]]
    optimizer = cls(*([players] if many else players), lr=0.3, solver=solver)
    before = game.w()
    with pytest.warns(ConvergenceWarning, match=status.sentence.split(".")[0]) as caught:
        optimizer.step(game.losses())
    assert caught[0].filename == __file__
    assert not torch.equal(game.w(), before)
    assert optimizer.last_step.status is status
    optimizer.step(game.losses())


def test_a_fixed_count_is_not_told() -> None:
    game = GeneralGame()
    optimizer = PolymatrixCGD([[game.x], [game.y]], solver=GMRES(rtol=0.0, max_iter=1))
    optimizer.step(game.losses())


@pytest.mark.parametrize("cls", [SGA, LCGD, LOLA, ConsensusOptimization, PolymatrixCGD])
@pytest.mark.filterwarnings("default:The players do not interact:compopt.StepWarning")
def test_a_detached_loss_of_a_pair_is_told_by_all_that_take_products(cls: Any) -> None:
    game = GeneralGame()
    players = [[game.x], [game.y]]
    optimizer = cls(*([players] if cls is PolymatrixCGD else players), lr=0.01)
    loss, _ = game.losses()
    detached = (game.x.detach().sum() * game.y).sum()
    with pytest.warns(StepWarning, match=r"the loss of (max|1) does not depend on (min|0)\. "):
        optimizer.step([loss, detached] if cls is PolymatrixCGD else (loss, detached))
