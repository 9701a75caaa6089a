"""Losses of GANs against closed forms, and that a step takes what they return."""

import math

import pytest
import torch
from torch import Tensor, nn

from compopt import ACGD, GMRES, losses

REAL = torch.tensor([[1.5], [-0.5], [3.0]], dtype=torch.float64)
FAKE = torch.tensor([[0.25], [-2.0], [-0.75]], dtype=torch.float64)
R, F = REAL.flatten().tolist(), FAKE.flatten().tolist()
PAIRS = ["non_saturating", "hinge", "least_squares", "relativistic", "relativistic_average"]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def log_s(score: float) -> float:
    """Return the logarithm of the sigmoid."""
    return -math.log(1 + math.exp(-score))


def expected() -> dict[str, float | tuple[float, float]]:
    minimax = mean(log_s(r) for r in R) + mean(math.log(1 - 1 / (1 + math.exp(-f))) for f in F)
    to_fake, to_real = [r - mean(F) for r in R], [f - mean(R) for f in F]
    return {
        "wasserstein": mean(R) - mean(F),
        "minimax": minimax,
        "non_saturating": (-mean(log_s(f) for f in F), -minimax),
        "hinge": (-mean(F), mean(max(0, 1 - r) for r in R) + mean(max(0, 1 + f) for f in F)),
        "least_squares": (
            mean((f - 1) ** 2 for f in F) / 2,
            mean((r - 1) ** 2 for r in R) / 2 + mean(f**2 for f in F) / 2,
        ),
        "relativistic": (
            -mean(log_s(f - r) for r, f in zip(R, F, strict=True)),
            -mean(log_s(r - f) for r, f in zip(R, F, strict=True)),
        ),
        "relativistic_average": (
            -mean(log_s(f) for f in to_real) - mean(log_s(-r) for r in to_fake),
            -mean(log_s(r) for r in to_fake) - mean(log_s(-f) for f in to_real),
        ),
    }


@pytest.mark.parametrize("name", expected())
def test_closed_form(name):
    found = getattr(losses, name)(REAL, FAKE)
    wanted = expected()[name]
    assert isinstance(found, tuple) == isinstance(wanted, tuple) == (name in PAIRS)
    parts = found if isinstance(found, tuple) else (found,)
    assert [float(part) for part in parts] == pytest.approx(
        list(wanted) if isinstance(wanted, tuple) else [wanted], rel=1e-13
    )
    if name in PAIRS:
        assert float(losses.zero_sum(found)) == pytest.approx(-wanted[1], rel=1e-13)


def test_every_public_loss_is_tested():
    assert set(losses.__all__) == {*expected(), "zero_sum"}


@pytest.mark.parametrize("name", PAIRS)
def test_players_pull_the_scores_apart_and_together(name):
    """The generator raises the scores of its samples, the critic opposes it."""
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    generator, critic = getattr(losses, name)(real, fake)
    for loss, sign in ((generator, -1), (critic, 1), (-losses.zero_sum((generator, critic)), 1)):
        (grad,) = torch.autograd.grad(loss, fake, retain_graph=True)
        # The critic of least squares wants scores of 0, from wherever.
        direction = fake.detach().sign() if name == "least_squares" and sign == 1 else 1
        assert (sign * direction * grad >= 0).all()
        assert grad.abs().sum() > 0


def test_extreme_scores_stay_finite():
    for name in expected():
        found = getattr(losses, name)(1e4 * REAL.float(), 1e4 * FAKE.float())
        for part in found if isinstance(found, tuple) else (found,):
            assert torch.isfinite(part)


def test_relativistic_needs_one_shape():
    with pytest.raises(ValueError, match=r"same shape, got \(3, 1\) and \(2, 1\)"):
        losses.relativistic(REAL, FAKE[:2])


@pytest.mark.parametrize("name", expected())
@pytest.mark.parametrize("as_one", [False, True])
def test_a_step_takes_it(name, as_one):
    generator, critic = nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    loss = getattr(losses, name)(critic(torch.randn(8, 2)), critic(generator(torch.randn(8, 3))))
    is_pair = isinstance(loss, tuple)
    if as_one and is_pair:
        loss = losses.zero_sum(loss)
    solver = GMRES() if isinstance(loss, tuple) else None
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=1e-3, solver=solver)
    before = [param.detach().clone() for net in (generator, critic) for param in net.parameters()]
    returned = optimizer.step(loss)
    assert isinstance(returned, Tensor) or len(returned) == 2
    assert optimizer.last_step.taken
    after = [param for net in (generator, critic) for param in net.parameters()]
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) >= 5
