"""Preflight and the operator check take whatever a step takes."""

import re

import pytest
import torch
from covering import one_each
from games import GeneralGame
from preflight_games import Layer, Once, generator
from torch import nn
from wrong_derivatives import FUNCTIONS, wrong

from compopt import CGD, GMRES, Game, MicroBatches
from compopt.diagnosis import PreflightError, check_operator, preflight
from compopt.optim import StepWarning

DEPENDENCE = "The players do not interact fully: "


class Parts:
    """A small GAN with the parts that losses are made of."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        self.generator = generator()
        self.critic = nn.Sequential(nn.Linear(4, 4), layer or nn.Tanh(), nn.Linear(4, 1))
        self.noise, self.real = torch.randn(6, 2), torch.randn(6, 4)
        self.players = self.generator, self.critic

    def score(self, share: float = 1.0):
        return self.critic(self.generator(self.noise[: round(6 * share)])).square().mean()

    def truth(self):
        return self.critic(self.real).sin().mean()


FORMS = {
    "loss": lambda p: p.truth() - p.score(),
    "pair": lambda p: (-p.score(), p.score().exp() - p.truth()),
    "game": lambda p: Game(p.truth() - p.score()),
    "game of two losses": lambda p: Game(-p.score(), max_loss=p.score().exp() - p.truth()),
    "penalties": lambda p: Game(
        p.truth() - p.score(),
        min_penalty=p.generator[0].weight.square().sum(),
        max_penalty=p.truth().square(),
    ),
    "curvature": lambda p: Game(p.truth() - p.score(), curvature_loss=-p.score(0.5)),
    "micro-batches": lambda p: MicroBatches(p.truth() - p.score(s) for s in (0.5, 1.0)),
    "micro-batches of pairs": lambda p: MicroBatches((-p.score(s), p.score(s)) for s in (0.5, 1.0)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_measured(form):
    parts = Parts()
    report = preflight(lambda: FORMS[form](parts), *parts.players)
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-5
    assert report.interacts
    outcome = FORMS[form](parts)
    assert (report.max_loss is not None) == ("pair" in form or "two losses" in form)
    if form == "pair":
        assert report.loss == pytest.approx(float(outcome[0].detach()))
        assert report.max_loss == pytest.approx(float(outcome[1].detach()))
        assert f"loss {report.loss:.4g}, {report.max_loss:.4g}, the" in str(report)


@pytest.mark.parametrize(
    ("form", "closure"), one_each(list(FORMS), {"value": False, "function": True})
)
def test_operator_of_every_form(form, closure):
    parts = Parts()
    given = (lambda: FORMS[form](parts)) if closure else FORMS[form](parts)
    report = check_operator(given, *parts.players)
    assert report.ok
    assert max(report.errors.values()) > 0


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_second_derivative_is_found_in_every_form(form):
    parts = Parts(Layer(FUNCTIONS["saved intermediate"]))
    with pytest.raises(PreflightError, match=r"mixed product of .+max_player\.1 \(Layer\) itself"):
        preflight(lambda: FORMS[form](parts), *parts.players)


ONE_SIDED = {
    "curvature": lambda p, wrong: Game(p.score(), curvature_loss=wrong),
    "max_loss": lambda p, wrong: Game(p.score(), max_loss=wrong),
    "loss": lambda p, wrong: Game(wrong, max_loss=p.score()),
    "second part": lambda p, wrong: MicroBatches([p.score(), wrong]),
}


@pytest.mark.parametrize("form", ONE_SIDED)
def test_a_fault_in_one_term_is_found(form):
    parts, fault = Parts(), FUNCTIONS["saved intermediate"]

    def loss():
        scores = parts.critic(parts.generator(parts.noise))
        return ONE_SIDED[form](parts, fault(scores).square().mean())

    with pytest.raises(PreflightError, match="mixed product of") as raised:
        preflight(loss, *parts.players)
    term = {"curvature": "curvature_loss", "second part": "loss"}.get(form, form)
    assert set(re.findall(r"product of `(\w+)`", str(raised.value))) == {term}


@pytest.mark.parametrize("form", ["max_loss", "loss", "second part", "curvature"])
def test_operator_of_one_wrong_term(form):
    parts = Parts()
    # Its backward is right, and the derivative of that is not.
    fault = wrong(lambda ctx, x: x.clone(), lambda ctx, grad: FUNCTIONS["factor"](grad))
    scores = parts.critic(fault(parts.generator(parts.noise)))
    report = check_operator(ONE_SIDED[form](parts, scores.square().mean()), *parts.players)
    assert report.transpose > 1e-3


@pytest.mark.parametrize("player", ["min", "max"])
def test_a_wrong_gradient_of_a_penalty_is_found(player):
    parts, fault = Parts(), FUNCTIONS["factor"]
    param = next(parts.players[player == "max"].parameters())

    def loss():
        return Game(parts.score(), **{f"{player}_penalty": fault(param.square()).sum()})

    with pytest.raises(
        PreflightError, match=rf"gradient of `{player}_penalty` for {player}_player"
    ):
        preflight(loss, *parts.players)


def test_a_penalty_is_measured_for_its_own_player_only():
    parts = Parts()

    def loss():
        fakes = parts.generator(parts.noise).detach()
        return Game(parts.score(), max_penalty=parts.critic(fakes).square().mean())

    assert preflight(loss, *parts.players).unmeasured is None


DETACHED = {
    "generator": lambda p: (
        p.score(),
        p.critic(p.generator(p.noise).detach()).mean() - p.truth(),
        "the loss of max does not depend on min",
    ),
    "no critic": lambda p: (
        p.generator(p.noise).square().mean(),
        p.score() - p.truth(),
        "the loss of min does not depend on max",
    ),
    "both": lambda p: (
        p.generator(p.noise).square().mean(),
        -p.truth(),
        "the loss of min does not depend on max and the loss of max does not depend on min",
    ),
}


@pytest.mark.parametrize("as_pair", [False, True], ids=["game", "pair"])
@pytest.mark.parametrize("which", DETACHED)
def test_a_loss_of_a_pair_that_depends_on_one_player(which, as_pair):
    parts = Parts()

    def loss():
        first, second, _ = DETACHED[which](parts)
        return (first, second) if as_pair else Game(first, max_loss=second)

    words = DEPENDENCE + DETACHED[which](parts)[-1]
    with pytest.raises(PreflightError, match=words) as raised:
        preflight(loss, *parts.players)
    optimizer = CGD(*(p.parameters() for p in parts.players), lr=0.1, solver=GMRES())
    with pytest.warns(StepWarning) as warned:
        optimizer.step(loss)
    assert str(raised.value) in map(str, (w.message for w in warned))


def test_a_player_without_its_own_gradient_in_a_pair():
    parts = Parts()
    with pytest.raises(PreflightError, match=r"^`max_loss` does not depend on max_player"):
        preflight(lambda: (parts.score(), parts.generator(parts.noise).mean()), *parts.players)


@pytest.mark.parametrize("name", ["loss", "max_loss", "min_penalty", "max_penalty"])
@pytest.mark.parametrize("micro", [False, True])
def test_a_term_without_graph(name, micro):
    parts = Parts()

    def loss():
        terms = {"loss": parts.score(), name: parts.score().detach()}
        return MicroBatches([Game(**terms)]) if micro else Game(**terms)

    called = "a loss" if name == "loss" else f"`{name}`"
    with pytest.raises(PreflightError, match=f"^`loss_fn` returned {called} without a graph"):
        preflight(loss, *parts.players)


@pytest.mark.parametrize("form", ["max_loss", "loss", "curvature"])
def test_failures_of_each_loss_are_located(form):
    parts, layer = Parts(), Layer(Once.apply)

    def loss():
        scores = layer(parts.critic(parts.generator(parts.noise)))
        return ONE_SIDED[form](parts, scores.square().mean())

    with pytest.raises(PreflightError, match=r"`OnceBackward` of modules\[0\] \(Layer\) cannot"):
        preflight(loss, *parts.players, modules=[layer])


def test_a_loss_with_a_curvature_loss_is_differentiated_once():
    parts, layer = Parts(), Layer(Once.apply)

    def loss():
        scores = layer(parts.critic(parts.generator(parts.noise)))
        return Game(scores.square().mean(), curvature_loss=parts.score())

    assert preflight(loss, *parts.players).unmeasured is None


def test_a_max_loss_that_is_not_finite():
    parts = Parts()
    with pytest.raises(PreflightError, match=r"^`max_loss` is nan"):
        preflight(lambda: (parts.score(), parts.score() * torch.nan), *parts.players)


def test_a_quadratic_pair_agrees():
    game = GeneralGame()
    report = preflight(game.losses, [game.x], [game.y])
    assert max(report.errors.values()) < 1e-5


@pytest.mark.parametrize("given", [torch.ones((), requires_grad=True), (1, 2)])
def test_the_loss_must_be_a_function(given):
    with pytest.raises(TypeError, match="`loss_fn` must be a function without arguments"):
        preflight(given, *Parts().players)
