"""Gradient penalties against closed forms of linear and quadratic critics, in float64."""

import math

import pytest
import torch
from covering import one_each, pairwise
from dense import assert_close
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from compopt.penalties import (
    R1,
    R2,
    Dragan,
    GradientPenalty,
    WganGP,
    critic_gradients,
    gradient_penalty,
    interpolate,
    perturb,
)

SHAPES = [(4, 3), (4, 3, 5), (4, 2, 3, 5), (4, 2, 3, 2, 5)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape)}-D")
FORMS = [(1.0, False), (0.4, True), (0.0, False)]
each_form = pytest.mark.parametrize(
    ("target", "one_sided"), FORMS, ids=["two-sided", "one-sided", "zero-centred"]
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Quadratic(nn.Module):
    """``D(x) = x^T A x / 2 + b^T x`` over all axes of a sample."""

    def __init__(self, size: int, out: str = "[n]") -> None:
        super().__init__()
        a = randn(size, size, seed=1)
        self.a = nn.Parameter(a + a.T)
        self.b = nn.Parameter(randn(size, seed=2))
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        scores = ((x @ self.a) * x).sum(1) / 2 + x @ self.b
        if self.out == "[n]":
            return scores
        # A patch critic, whose scores add up to the one score.
        return scores.unsqueeze(1) if self.out == "[n, 1]" else scores.view(-1, 1, 1, 1) * WEIGHTS

    def gradients(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x @ (self.a + self.a.T) / 2 + self.b


WEIGHTS = torch.tensor([[0.5, 0.2], [0.7, -0.4]], dtype=torch.float64)


def closed_form(gradients: Tensor, target: float, one_sided: bool, eps: float = 1e-12) -> Tensor:
    squares = (gradients**2).sum(1)
    if target == 0:
        return squares.mean()
    excess = torch.sqrt(squares + eps) - target
    return ((torch.relu(excess) if one_sided else excess) ** 2).mean()


@pairwise(shape=SHAPES, form=FORMS, out=["[n]", "[n, 1]", "patches"])
def test_value_and_gradient_of_a_quadratic_critic(shape, form, out):
    target, one_sided = form
    critic = Quadratic(math.prod(shape[1:]), out)
    x = randn(*shape, seed=3)
    penalty = gradient_penalty(critic, x, target=target, one_sided=one_sided)
    expected = closed_form(critic.gradients(x), target, one_sided)
    assert_close(penalty.detach(), expected.detach(), 1e-13)
    params = [critic.a, critic.b]
    for one, other in zip(
        torch.autograd.grad(penalty, params), torch.autograd.grad(expected, params), strict=True
    ):
        assert_close(one, other, 1e-12)


@pytest.mark.parametrize(("shape", "form"), one_each(SHAPES, FORMS))
def test_second_gradient_of_a_quadratic_critic(shape, form):
    target, one_sided = form
    critic = Quadratic(math.prod(shape[1:]))
    x = randn(*shape, seed=3)
    params = [critic.a, critic.b]
    directions = [randn(*param.shape, seed=4 + index) for index, param in enumerate(params)]
    products = []
    for value in (
        gradient_penalty(critic, x, target=target, one_sided=one_sided),
        closed_form(critic.gradients(x), target, one_sided),
    ):
        grads = torch.autograd.grad(value, params, create_graph=True)
        along = sum((grad * d).sum() for grad, d in zip(grads, directions, strict=True))
        products.append(torch.autograd.grad(along, params))
    for one, other in zip(*products, strict=True):
        assert_close(one, other, 1e-11)


@each_form
def test_derivatives_by_finite_differences(target, one_sided):
    x = randn(3, 4, seed=3)

    def penalty(a: Tensor, b: Tensor, points: Tensor) -> Tensor:
        return gradient_penalty(
            lambda x: (torch.tanh(x @ a) * b).sum(1), points, target=target, one_sided=one_sided
        )

    inputs = [t.requires_grad_() for t in (randn(4, 5, seed=1), randn(5, seed=2), x)]
    assert gradcheck(penalty, inputs)
    assert gradgradcheck(penalty, inputs)


@each_shape
def test_a_linear_critic_has_one_norm_everywhere(shape):
    weight = randn(*shape[1:], seed=1).requires_grad_()
    norm = weight.detach().norm()
    x, fake = randn(*shape, seed=2), randn(*shape, seed=3)

    def critic(points: Tensor) -> Tensor:
        return (points * weight).flatten(1).sum(1)

    unit = ((norm**2 + 1e-12).sqrt() - 1) ** 2
    assert_close(WganGP()(critic, x, fake).detach(), 10 * unit, 1e-12)
    assert_close(Dragan()(critic, x).detach(), 10 * unit, 1e-12)
    assert_close(GradientPenalty(2.0, target=3.0)(critic, x).detach(), 2 * (norm - 3) ** 2, 1e-11)
    assert_close(R1()(critic, x).detach(), 5 * norm**2, 1e-13)
    assert_close(R2(3.0)(critic, fake).detach(), 1.5 * norm**2, 1e-13)
    # d (|w| - 1)^2 / dw = 2 (|w| - 1) w / |w|
    (grad,) = torch.autograd.grad(WganGP()(critic, x, fake), weight)
    assert_close(grad, 20 * (norm - 1) * weight.detach() / norm, 1e-11)
    (grad,) = torch.autograd.grad(R1()(critic, x), weight)
    assert_close(grad, 10 * weight.detach(), 1e-13)


def test_norms_are_per_sample():
    """A norm over the batch or over channels alone would give another value."""
    slopes = torch.tensor([1.0, 3.0], dtype=torch.float64)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    x = randn(2, 2, 2, 2)

    def critic(points: Tensor) -> Tensor:
        return scale * (points.flatten(1).sum(1) * slopes)

    # Gradients of length sqrt(8) * slope.
    expected = ((8**0.5 * slopes - 1) ** 2).mean()
    assert_close(gradient_penalty(critic, x).detach(), expected, 1e-12)


class TestZeroGradient:
    """Where the critic is flat, a root without care gives NaN."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("form", [*FORMS, (1.0, True)], ids=str)
    def test_value_and_both_gradients_are_finite(self, form, dtype):
        target, one_sided = form
        weight = torch.zeros(3, dtype=dtype, requires_grad=True)
        x = torch.ones(2, 3, dtype=dtype, requires_grad=True)
        value = gradient_penalty(
            lambda points: torch.tanh(points @ weight), x, target=target, one_sided=one_sided
        )
        expected = 0.0 if one_sided else target**2
        assert float(value.detach()) == pytest.approx(expected, abs=3e-6)
        grads = torch.autograd.grad(value, [weight, x], create_graph=True)
        assert all(torch.isfinite(grad).all() for grad in grads)
        along = grads[0].sum() + (grads[1] * torch.arange(3)).sum()
        second = torch.autograd.grad(along, [weight, x])
        assert all(torch.isfinite(grad).all() for grad in second)

    def test_a_gradient_that_underflows_when_squared(self):
        weight = torch.full((3,), 1e-30, requires_grad=True)
        value = gradient_penalty(lambda points: points @ weight, torch.ones(2, 3))
        (grad,) = torch.autograd.grad(value, weight)
        assert torch.isfinite(grad).all()


class TestInterpolation:
    @each_shape
    def test_points_lie_on_segments_with_one_share_a_sample(self, shape):
        real, fake = randn(*shape, seed=1), randn(*shape, seed=2)
        points = interpolate(real, fake, generator=torch.Generator().manual_seed(3))
        shares = ((points - fake) / (real - fake)).flatten(1)
        assert_close(shares, shares[:, :1].expand_as(shares), 1e-11)
        assert (shares >= 0).all()
        assert (shares <= 1).all()
        assert len(shares[:, 0].unique()) == len(real)

    def test_shares_are_uniform(self):
        """Normal deviates, or shares near one end, fail by far."""
        n = 20_000
        zeros = torch.zeros(n, 2, dtype=torch.float64)
        points = interpolate(zeros + 1, zeros, generator=torch.Generator().manual_seed(0))
        shares = points[:, 0].sort().values
        # Kolmogorov-Smirnov at a level of 1e-6.
        grid = torch.arange(1, n + 1, dtype=torch.float64) / n
        assert float((shares - grid).abs().max()) < 2.7 / n**0.5

    def test_given_shares(self):
        real, fake = randn(2, 3, seed=1), randn(2, 3, seed=2)
        points = interpolate(real, fake, share=torch.tensor([1.0, 0.25], dtype=torch.float64))
        assert_close(points, torch.stack([real[0], real[1] / 4 + 3 * fake[1] / 4]), 1e-14)

    def test_wgan_gp_is_taken_there(self):
        critic = Quadratic(3)
        real, fake = randn(4, 3, seed=1), randn(4, 3, seed=2)
        points = interpolate(real, fake, generator=torch.Generator().manual_seed(5))
        term = WganGP(4.0)(critic, real, fake, generator=torch.Generator().manual_seed(5))
        expected = 4 * closed_form(critic.gradients(points), 1.0, False)
        assert_close(term.detach(), expected.detach(), 1e-12)


class TestDraganPerturbation:
    REAL = torch.linspace(-3, 5, 40_000, dtype=torch.float64).reshape(2000, 4, 5)

    def noise(self, **options) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        return perturb(self.REAL, generator=generator, **options) - self.REAL

    def test_released_code(self):
        """``alpha * 0.5 * std * u``: one-sided, of the data's scale, alpha one a sample."""
        std = self.REAL.std(correction=0)
        noise = (self.noise() / (0.5 * std)).flatten(1)
        assert noise.min() >= 0
        assert noise.max() <= 1
        # The mean of alpha u is 1/4, its variance 1/9 - 1/16; by samples alpha has 1/12.
        assert float(noise.mean()) == pytest.approx(0.25, abs=0.01)
        assert float(noise.var()) == pytest.approx(1 / 9 - 1 / 16, abs=0.003)
        assert float(noise.mean(1).var()) == pytest.approx(1 / 48 + 1 / 9 / 20 - 1 / 320, rel=0.1)
        # The largest entry of a sample is nearly its alpha, which is uniform.
        assert float((noise.amax(1) < 0.25).double().mean()) == pytest.approx(0.26, abs=0.04)

    def test_released_code_follows_the_scale_of_the_data(self):
        generators = (torch.Generator().manual_seed(1) for _ in range(2))
        one, other = (
            perturb(k * self.REAL, generator=g) for k, g in zip((1, 6), generators, strict=True)
        )
        assert_close(other, 6 * one, 1e-12)
        # One standard deviation of the whole batch, in its population form.
        flat_data = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
        noise = perturb(flat_data, generator=torch.Generator().manual_seed(1)) - flat_data
        g = torch.Generator().manual_seed(1)
        alpha = torch.rand(1, 1, generator=g, dtype=torch.float64)
        u = torch.rand(1, 2, generator=g, dtype=torch.float64)
        assert_close(noise, alpha * 0.5 * 1.0 * u, 1e-12)

    def test_paper(self):
        """``N(0, 10 I)``: two-sided, of its own scale."""
        noise = self.noise(perturbation="paper")
        assert float(noise.mean()) == pytest.approx(0, abs=0.06)
        assert float(noise.var()) == pytest.approx(10, rel=0.03)
        assert float((noise**4).mean() / noise.var() ** 2) == pytest.approx(3, rel=0.05)
        assert_close(self.noise(perturbation="paper", scale=40.0), 2 * noise, 1e-12)

    @pytest.mark.parametrize("perturbation", ["released", "paper"])
    def test_the_penalty_is_taken_there(self, perturbation):
        critic = Quadratic(20)
        real = self.REAL[:50]
        points = perturb(
            real, perturbation=perturbation, scale=0.3, generator=torch.Generator().manual_seed(2)
        )
        dragan = Dragan(2.0, target=1.5, perturbation=perturbation, scale=0.3)
        term = dragan(critic, real, generator=torch.Generator().manual_seed(2))
        expected = 2 * closed_form(critic.gradients(points), 1.5, False)
        assert_close(term.detach(), expected.detach(), 1e-12)


class TestGraphs:
    def test_without_gradients_only_the_value_is_computed(self):
        critic, x = Quadratic(3), randn(4, 3)
        with torch.no_grad():
            value = gradient_penalty(critic, x)
        assert not value.requires_grad
        assert_close(value, gradient_penalty(critic, x).detach(), 1e-14)

    def test_nothing_of_the_user_is_touched(self):
        critic, x = Quadratic(3), randn(4, 3)
        before = x.clone()
        gradient_penalty(critic, x).backward()
        assert not x.requires_grad
        assert x.grad is None
        assert torch.equal(x, before)
        assert critic.a.grad is not None

    def test_real_samples_are_constants(self):
        critic, x = Quadratic(3), randn(4, 3).requires_grad_()
        for term in (R1()(critic, x), Dragan()(critic, x), WganGP()(critic, x, 2 * x)):
            assert torch.autograd.grad(term, x, allow_unused=True) == (None,)

    @pytest.mark.parametrize("detach", [True, False])
    def test_fakes_keep_their_graph_if_told(self, detach):
        critic, x, y = Quadratic(3), randn(4, 3), randn(4, 3, seed=1).requires_grad_()
        for term in (R2(detach=detach)(critic, y), WganGP(detach=detach)(critic, x, y)):
            (grad,) = torch.autograd.grad(term, y, allow_unused=True)
            assert (grad is None) == detach

    def test_gradients_of_scores(self):
        critic, x = Quadratic(6), randn(4, 2, 3)
        gradients = critic_gradients(critic, x)
        assert gradients.shape == x.shape
        assert_close(gradients.flatten(1).detach(), critic.gradients(x).detach(), 1e-13)
