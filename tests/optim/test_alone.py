"""Steps of one player alone: its own gradient step, with the step sizes of the competitive one."""

from typing import Any

import pytest
import torch
from games import NetworkGame, QuadraticGame, flat
from snapshots import assert_same_bits, snapshot
from torch import Tensor, nn

from compopt import ACGD, CGD, ConjugateGradient, Game, StepError, StepWarning

BETA, EPS = 0.9, 1e-5


@pytest.mark.parametrize("player", ["min", "max"])
def test_several_steps_are_those_of_the_formula(player: str) -> None:
    """RMSProp with ACGD's bias correction; afterwards the other's first step is its first."""
    game = QuadraticGame()
    optimizer = ACGD(game.min_params, game.max_params, lr=(0.1, 0.02), beta=BETA, eps=EPS)
    other = "max" if player == "min" else "min"
    still = flat(game.params(other)).detach().clone()
    rate = 0.1 if player == "min" else 0.02
    average: Tensor | float = 0.0
    for step in range(1, 6):
        own = game.own_grads()[player]
        average = BETA * average + (1 - BETA) * own**2
        expected = flat(game.params(player)).detach() - rate * (1 - BETA**step) ** 0.5 * own / (
            average.sqrt() + EPS
        )
        loss = optimizer.step(game.loss(), player=player)
        assert loss is not None
        assert not loss.requires_grad
        torch.testing.assert_close(flat(game.params(player)).detach(), expected, rtol=1e-12, atol=0)
    assert torch.equal(flat(game.params(other)), still)
    assert not any(param in optimizer.state for param in game.params(other))
    assert {float(optimizer.state[param]["step"]) for param in game.params(player)} == {5.0}


def test_the_other_player_need_not_take_part() -> None:
    torch.manual_seed(0)
    generator, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=0.01)
    real = torch.randn(8, 2)
    for requires_grad in (False, True, False):
        generator.requires_grad_(requires_grad)
        fake = generator(torch.randn(8, 2)).detach()
        before = [param.detach().clone() for param in critic.parameters()]
        optimizer.step(critic(real).mean() - critic(fake).mean(), player="max")
        weight = next(critic.parameters())
        assert not torch.equal(weight, before[0])
    generator.requires_grad_(True)
    fake = generator(torch.randn(8, 2))
    optimizer.step(critic(real).mean() - critic(fake).mean())
    assert optimizer.last_step.taken


@pytest.mark.parametrize("form", ["loss", "pair", "game", "closure"])
def test_forms_of_a_loss(form: str) -> None:
    ends = []
    for is_form in (False, True):
        game = QuadraticGame()
        optimizer = CGD(game.min_params, game.max_params, lr=0.1)
        penalty = (game.max_params[0] ** 2).sum()
        loss = game.loss()
        forms: dict[str, Any] = {
            "loss": loss,
            "pair": (3 * loss, -loss),
            "game": Game(3 * loss, max_loss=-loss, max_penalty=penalty),
            "closure": lambda loss=loss: loss,
        }
        terms = {} if is_form and form == "game" else {"max_penalty": penalty}
        optimizer.step(forms[form] if is_form else loss, player="max", **terms)
        ends.append(flat(game.max_params).detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-14, atol=0)


def test_hyperparameters_of_groups_count() -> None:
    game = QuadraticGame()
    groups = [
        {"params": [game.max_params[0]], "lr": 0.3, "weight_decay": 0.1, "max_grad_norm": 0.01},
        {"params": [game.max_params[1]], "interaction": 0.7},
    ]
    optimizer = CGD(game.min_params, groups, lr=0.1, interaction=0.2)
    own = game.own_grads()["max"]
    first, second = (param.detach().clone() for param in game.max_params)
    optimizer.step(game.loss(), player="max")
    clipped = own[:2] * (0.01 / (own[:2].norm() + 1e-6))
    torch.testing.assert_close(game.max_params[0].detach(), first * 0.97 - 0.3 * clipped)
    torch.testing.assert_close(game.max_params[1].detach(), second - 0.1 * own[2])


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("solve_for", ["min", "max", "alternate"])
def test_state_resumes_bit_for_bit(warm_start: bool, solve_for: Any) -> None:
    ends = []
    for is_resumed in (False, True):
        game = QuadraticGame()
        options = {"lr": 0.05, "warm_start": warm_start, "solve_for": solve_for}
        optimizer = ACGD(game.min_params, game.max_params, **options)
        for _ in range(3):
            for player in ("max", "max", None):
                optimizer.step(game.loss(), player=player)
                if is_resumed:
                    state = optimizer.state_dict()
                    optimizer = ACGD(game.min_params, game.max_params, **options)
                    optimizer.load_state_dict(state)
        ends.append(snapshot(optimizer))
    assert_same_bits(*ends)


@pytest.mark.parametrize("count", [4, 5])
def test_alternation_goes_by_the_steps_of_both(count: int) -> None:
    """An odd or even number of the critic's own steps changes nothing."""
    game = QuadraticGame()
    optimizer = ACGD(game.min_params, game.max_params, lr=0.01, solve_for="alternate")
    solved = []
    for _ in range(4):
        for _ in range(count):
            optimizer.step(game.loss(), player="max")
        optimizer.step(game.loss())
        solved.append(optimizer.last_step.solved_for)
    assert solved == ["max", "min", "max", "min"]


@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_captured_steps_are_those_of_the_host(cls: Any) -> None:
    ends = []
    for capturable in (False, True):
        game = NetworkGame()
        optimizer = cls(
            game.min_params,
            game.max_params,
            lr=0.01,
            solver=ConjugateGradient(rtol=0.0, max_iter=1),
            solve_for="min",
            capturable=capturable,
        )
        for step in range(3):
            optimizer.step(game.loss(step), player="max")
        optimizer.step(game.loss(3) * torch.nan, player="max") if capturable else None
        optimizer.step(game.loss(4))
        ends.append(torch.cat([flat(game.min_params), flat(game.max_params)]).detach())
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("on_failure", ["fallback", "skip", "raise"])
def test_a_step_that_is_not_finite_is_not_taken(on_failure: Any) -> None:
    game = QuadraticGame()
    optimizer = ACGD(game.min_params, game.max_params, lr=0.1, on_failure=on_failure)
    optimizer.step(game.loss(), player="max")
    before = snapshot(optimizer)
    raises = on_failure == "raise"
    expected = pytest.raises(StepError) if raises else pytest.warns(StepWarning)
    with expected as caught:
        optimizer.step(game.loss() * torch.nan, player="max")
    message = str(caught.value if raises else caught[0].message)
    assert "The gradient of the max player is not finite" in message
    assert_same_bits(snapshot(optimizer), before)


@pytest.mark.parametrize(
    ("terms", "error", "match"),
    [
        ({"player": "critic"}, ValueError, "`player` must be"),
        ({"player": "max", "min_penalty": True}, ValueError, "`min_penalty` does not apply"),
        ({"player": "min", "max_penalty": True}, ValueError, "`max_penalty` does not apply"),
        ({"player": "min", "curvature_loss": True}, ValueError, "`curvature_loss` does not apply"),
    ],
)
def test_what_has_no_part_is_refused(terms: dict[str, Any], error: Any, match: str) -> None:
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params, lr=0.1)
    before = snapshot(optimizer)
    given = {name: game.loss() if value is True else value for name, value in terms.items()}
    with pytest.raises(error, match=match):
        optimizer.step(game.loss(), **given)
    assert_same_bits(snapshot(optimizer), before)


def test_a_loss_is_needed_and_must_depend_on_the_player() -> None:
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params, lr=0.1)
    with pytest.raises(TypeError, match="needs a loss"):
        optimizer.step(player="max")
    with pytest.raises(ValueError, match="none of the max player"):
        optimizer.step((game.min_params[0] ** 2).sum(), player="max")


def test_a_constrained_player_moves_alone_in_its_set() -> None:
    """Multiplicative weights: the logarithm changes by the rate times the gradient."""
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64, requires_grad=True)
    other = torch.ones(1, dtype=torch.float64, requires_grad=True)
    gain = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    optimizer = CGD([other], [weights], lr=0.1, mirror=("euclidean", "simplex"))
    expected = (weights.detach().log() + 0.1 * gain).softmax(-1)
    optimizer.step(gain @ weights, player="max")
    torch.testing.assert_close(weights.detach(), expected, rtol=1e-13, atol=0)
    assert float(other.detach()) == 1.0


def test_the_prepared_step_is_gone_without_zero_grad() -> None:
    """Its gradients are left, of which a step without a graph says what they are."""
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params, lr=0.1)
    optimizer.backward(game.loss())
    with pytest.warns(StepWarning, match="discards an earlier `backward`"):
        optimizer.step(game.loss(), player="max")
    with pytest.raises(RuntimeError, match="found gradients but no graph"):
        optimizer.step()
