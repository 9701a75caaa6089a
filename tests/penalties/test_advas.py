"""AdvAs: the identity with LCGD, estimators without bias, the self-scaling coefficient."""

from itertools import product

import pytest
import torch
from cases import CASES
from dense import assert_close, blocks, flat
from torch import Tensor

from compopt import Game
from compopt.derivatives import differentiate
from compopt.penalties import AdvAs, advas_coefficient, adversary_gradient_norm
from compopt.penalties import advas as module

GAMES = ["quadratic", "bilinear", "mlp-gan", "conv-gan", "tied"]


@pytest.mark.parametrize("name", GAMES)
def test_is_the_squared_norm_and_its_gradient_one_mixed_product(name):
    case = CASES[name]()
    at = blocks(case)
    r = adversary_gradient_norm(case(), case.max_params)
    assert_close(r.detach(), at.grad_y @ at.grad_y, 1e-12)
    grads = torch.autograd.grad(r, case.min_params)
    assert_close(flat(list(grads)), 2 * at.mixed @ at.grad_y, 1e-11)


@pytest.mark.parametrize("name", GAMES)
def test_half_the_step_size_gives_the_lcgd_step_of_the_generator(name):
    """Descent on f + eta/2 |g_y|^2 moves by -eta (g_x + eta D g_y): CGD to first order."""
    eta = 0.07
    case = CASES[name]()
    at = blocks(case)
    lcgd = -eta * (at.grad_x + eta * at.mixed @ at.grad_y)
    loss = case()
    term = AdvAs(coefficient=eta / 2)(loss, case.max_params)
    beside = differentiate(Game(loss, min_penalty=term), case.players)
    assert_close(-eta * beside.grads["min"], lcgd, 1e-12)
    # The other player's gradient and the products are those of the plain game.
    assert_close(beside.grads["max"], -at.grad_y, 1e-12)
    v = torch.randn_like(at.grad_y)
    assert_close(beside.mixed_product("min", v), at.mixed @ v, 1e-12)
    # And so with plain autograd, in any optimizer.
    loss = case()
    total = loss + AdvAs(coefficient=eta / 2)(loss, case.max_params)
    grads = torch.autograd.grad(total, case.min_params)
    assert_close(-eta * flat(list(grads)), lcgd, 1e-12)


def test_the_sign_of_the_loss_does_not_matter():
    case = CASES["mlp-gan"]()
    terms = [adversary_gradient_norm(sign * case(), case.max_params) for sign in (1, -1)]
    assert_close(terms[0].detach(), terms[1].detach(), 1e-14)


class Batches:
    """A loss that is a mean over data points, so that all pairs of batches can be enumerated."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(3)
        self.x = torch.randn(3, generator=g, dtype=torch.float64, requires_grad=True)
        self.y = torch.randn(4, generator=g, dtype=torch.float64, requires_grad=True)
        self.a = torch.randn(6, 3, 4, generator=g, dtype=torch.float64)

    def loss(self, *indices: int) -> Tensor:
        values = torch.einsum("i,nij,j->n", self.x, self.a[list(indices)], self.y)
        return (values + values**2).mean()


class TestEstimators:
    def test_two_batches_are_unbiased(self):
        """Over all pairs of independent draws the mean is exactly the full batch's norm."""
        game = Batches()
        full = adversary_gradient_norm(game.loss(*range(6)), [game.y])
        pairs = torch.stack(
            [
                adversary_gradient_norm(game.loss(i), [game.y], second_loss=game.loss(j))
                for i, j in product(range(6), repeat=2)
            ]
        )
        assert_close(pairs.mean().detach(), full.detach(), 1e-12)
        gradients = [torch.autograd.grad(r, game.x)[0] for r in (pairs.mean(), full)]
        assert_close(*gradients, 1e-11)
        assert (pairs < 0).any()

    def test_one_batch_is_biased_by_the_variance(self):
        game = Batches()
        full = adversary_gradient_norm(game.loss(*range(6)), [game.y]).detach()
        ones = [adversary_gradient_norm(game.loss(i), [game.y]).detach() for i in range(6)]
        per_point = torch.stack([torch.autograd.grad(game.loss(i), game.y)[0] for i in range(6)])
        variance = per_point.var(dim=0, correction=0).sum()
        assert variance > 0.1 * full
        assert_close(torch.stack(ones).mean(), full + variance, 1e-12)

    @pytest.mark.parametrize("two", [False, True], ids=["one batch", "two batches"])
    def test_signs_are_unbiased(self, two, monkeypatch):
        """Over all 2^4 sign vectors the mean is exactly the squared norm."""
        game = Batches()
        second = game.loss(2, 3) if two else None
        exact = adversary_gradient_norm(game.loss(0, 1), [game.y], second_loss=second)
        estimates = []
        for chosen in product((-1.0, 1.0), repeat=4):
            e = torch.tensor(chosen, dtype=torch.float64)
            monkeypatch.setattr(module, "signs", lambda shape, like, generator, e=e: e)
            estimates.append(
                adversary_gradient_norm(
                    game.loss(0, 1), [game.y], second_loss=second, estimator="rademacher"
                )
            )
        assert_close(torch.stack(estimates).mean().detach(), exact.detach(), 1e-12)
        gradients = [
            torch.autograd.grad(r, game.x, retain_graph=True)[0]
            for r in (sum(estimates) / 16, exact)
        ]
        assert_close(*gradients, 1e-11)
        assert float(torch.stack(estimates).detach().std()) > 0

    def test_signs_are_independent_and_even(self):
        """By draws, for a gradient of ones in two tensors: within four standard errors.

        One sign for a tensor would give 3^2 + 4^2 = 25, one for all 49.
        """
        weights = [torch.ones(n, dtype=torch.float64, requires_grad=True) for n in (3, 4)]
        loss = weights[0].sum() + weights[1].sum()
        generator = torch.Generator().manual_seed(11)
        draws = torch.stack(
            [
                adversary_gradient_norm(
                    loss, weights, estimator="rademacher", generator=generator
                ).detach()
                for _ in range(1500)
            ]
        )
        assert abs(float(draws.mean()) - 7) < 4 * float(draws.std()) / 1500**0.5
        # Sums of seven signs are odd.
        assert {int(draw) for draw in draws} == {1, 9, 25, 49}


class TestSelfScalingCoefficient:
    def setup_method(self):
        self.case = CASES["mlp-gan"]()

    def norms(self) -> tuple[Tensor, Tensor]:
        at = blocks(self.case)
        return at.grad_x.norm(), (2 * at.mixed @ at.grad_y).norm()

    @pytest.mark.parametrize("scale", [0.1, 1e4])
    def test_is_the_ratio_of_norms_up_to_one(self, scale):
        loss = self.case()
        r = scale * adversary_gradient_norm(loss, self.case.max_params)
        coefficient = advas_coefficient(loss, r, self.case.min_params)
        norm_loss, norm_r = self.norms()
        expected = min(1.0, float(norm_loss / (scale * norm_r)))
        assert float(coefficient) == pytest.approx(expected, rel=1e-12)
        assert (expected < 1) == (scale > 1)
        assert not coefficient.requires_grad

    def test_in_the_object(self):
        loss = self.case()
        term = AdvAs()(loss, self.case.max_params, self.case.min_params)
        r = adversary_gradient_norm(loss, self.case.max_params)
        coefficient = advas_coefficient(loss, r, self.case.min_params)
        assert_close(term.detach(), (coefficient * r).detach(), 1e-13)
        # A loss of the generator's own, half as steep.
        other = AdvAs()(loss, self.case.max_params, self.case.min_params, generator_loss=loss / 2)
        own = advas_coefficient(loss / 2, r, self.case.min_params)
        assert own < coefficient
        assert_close(other.detach(), (own * r).detach(), 1e-13)
        first = self.case.min_params[0]
        grads = [torch.autograd.grad(t, first, retain_graph=True)[0] for t in (term, r)]
        assert_close(grads[0], coefficient * grads[1], 1e-11)

    def test_is_one_where_the_penalty_has_no_gradient(self):
        x = torch.zeros(2, requires_grad=True)
        y = torch.ones(2, requires_grad=True)
        loss = (x**2).sum() + (x**3 * y).sum() + y.sum()
        r = adversary_gradient_norm(loss, [y])
        assert float(advas_coefficient(loss, r, [x])) == 1.0
        assert float(advas_coefficient(loss, y.sum(), [x])) == 1.0


def test_frozen_weights_are_left_out_and_unused_ones_count_nothing():
    case = CASES["wgan"]()
    at = blocks(case)
    case.max_params[0].requires_grad_(False)
    kept = at.grad_y[case.max_params[0].numel() :]
    r = adversary_gradient_norm(case(), case.max_params)
    assert_close(r.detach(), kept @ kept, 1e-12)
    unused = torch.ones(3, dtype=torch.float64, requires_grad=True)
    assert_close(
        adversary_gradient_norm(case(), [*case.max_params, unused]).detach(), r.detach(), 1e-14
    )


def test_bad_input():
    case = CASES["mlp-gan"]()
    with pytest.raises(ValueError, match="`min_params` must be given for the self-scaling"):
        AdvAs()(case(), case.max_params)
    with pytest.raises(ValueError, match="`estimator` must be one of 'exact', 'rademacher'"):
        AdvAs(estimator="signs")
    with pytest.raises(ValueError, match="`loss` must depend on the weights of `critic`"):
        adversary_gradient_norm(case.min_params[0].sum(), case.max_params)
    with pytest.raises(ValueError, match="`loss` must be a real scalar that requires grad"):
        adversary_gradient_norm(torch.ones(3), case.max_params)
    with pytest.raises(ValueError, match="`second_loss` must be a scalar that requires grad"):
        adversary_gradient_norm(case(), case.max_params, second_loss=torch.tensor(1.0))
    frozen = torch.nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="`critic` must have trainable weights; all are frozen"):
        adversary_gradient_norm(case(), frozen)
    with pytest.raises(ValueError, match="`critic` is empty"):
        adversary_gradient_norm(case(), [])
