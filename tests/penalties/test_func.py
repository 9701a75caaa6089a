"""Gradient penalties inside the transforms of torch.func, against autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jacrev, vmap

from compopt.penalties import (
    R1,
    R2,
    Dragan,
    GradientPenalty,
    WganGP,
    critic_gradients,
)

Weights = dict[str, Tensor]
generator = nn.Linear(2, 3, dtype=torch.float64)
critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
REAL = torch.randn(5, 3, dtype=torch.float64)
NOISE = torch.randn(5, 2, dtype=torch.float64)


def scores(weights: Weights) -> Callable[[Tensor], Tensor]:
    return lambda x: functional_call(critic, weights, (x,))


def fake(weights: Weights) -> Tensor:
    return functional_call(generator, weights, (NOISE,))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


CRITIC, GENERATOR = (dict(module.named_parameters()) for module in (critic, generator))
TERMS: dict[str, Callable[[Weights, Weights], Tensor]] = {
    "R1": lambda c, g: R1()(scores(c), REAL),
    "R2": lambda c, g: R2()(scores(c), fake(g)),
    "R2-attached": lambda c, g: R2(detach=False)(scores(c), fake(g)),
    "two-sided": lambda c, g: GradientPenalty()(scores(c), REAL),
    "one-sided": lambda c, g: GradientPenalty(one_sided=True, target=0.1)(scores(c), fake(g)),
    "Dragan": lambda c, g: Dragan()(scores(c), REAL, generator=seeded()),
    "WganGP": lambda c, g: WganGP()(scores(c), REAL, fake(g), generator=seeded()),
}


def by_autograd(term: Callable[[Weights], Tensor], weights: Weights) -> Weights:
    grads = torch.autograd.grad(term(weights), list(weights.values()), allow_unused=True)
    pairs = zip(weights.items(), grads, strict=True)
    return {name: torch.zeros_like(w) if g is None else g for (name, w), g in pairs}


@pytest.mark.parametrize("name", TERMS)
def test_gradients_of_the_critic(name: str) -> None:
    def term(weights: Weights) -> Tensor:
        return TERMS[name](weights, GENERATOR)

    grads, value = grad_and_value(term)(CRITIC)
    torch.testing.assert_close(value.detach(), term(CRITIC).detach())
    torch.testing.assert_close(grads, by_autograd(term, CRITIC))


@pytest.mark.parametrize("name", ["R2-attached", "one-sided"])
def test_gradients_of_the_generator(name: str) -> None:
    def term(weights: Weights) -> Tensor:
        return TERMS[name](CRITIC, weights)

    torch.testing.assert_close(grad(term)(GENERATOR), by_autograd(term, GENERATOR))


def test_second_derivatives() -> None:
    def term(weights: Weights) -> Tensor:
        return TERMS["R1"](weights, GENERATOR)

    def squares(weights: Weights) -> Tensor:
        return torch.stack([g.square().sum() for g in grad(term)(weights).values()]).sum()

    def squares_by_autograd(weights: Weights) -> Tensor:
        grads = torch.autograd.grad(
            term(weights), list(weights.values()), create_graph=True, allow_unused=True
        )
        return torch.stack([g.square().sum() for g in grads if g is not None]).sum()

    expected = by_autograd(squares_by_autograd, CRITIC)
    torch.testing.assert_close(grad(squares)(CRITIC), expected)


def test_gradients_at_points_and_of_each_sample() -> None:
    values = critic_gradients(critic, REAL).detach()
    assert torch.equal(vmap(lambda x: critic_gradients(critic, x[None])[0])(REAL), values)
    jacobian = jacrev(lambda w: critic_gradients(scores(w), REAL))(CRITIC)
    assert jacobian["0.weight"].shape == (5, 3, 4, 3)


def test_a_critic_that_detaches_is_refused() -> None:
    def term(weights: Weights) -> Tensor:
        return R1()(lambda x: scores(weights)(x.detach()), REAL)

    for call in (term, grad(term)):
        with pytest.raises(ValueError, match="must"):
            call(CRITIC)
