"""Derivatives are measured in float64, or in the dtype of the parameters where there is none."""

import pytest
import torch
from games import NetworkGame
from preflight_games import WIDTH, Layer, generator, healthy, play
from torch import Tensor, nn
from wrong_derivatives import FUNCTIONS, wrong

from compopt.diagnosis import PreflightError, preflight


def test_frozen_networks_beside_the_players_are_widened():
    frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    module = Layer(lambda x: TimesWeight.apply(x, frozen.weight))
    loss_fn, *players = play(module)
    report = preflight(loss_fn, *players, modules=[frozen])
    assert report.unmeasured is None
    assert frozen.weight.dtype == torch.float32


class TimesWeight(torch.autograd.Function):
    """A custom function with its weight, which refuses to mix dtypes."""

    @staticmethod
    def forward(ctx, x, weight):
        assert x.dtype == weight.dtype
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight.T, x.T @ grad


def test_parameters_given_to_a_custom_function():
    """Modules hold twins meanwhile; of a bare parameter the graph goes past them."""
    weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
    holder = nn.ParameterList([weight])
    x, network = torch.randn(3, WIDTH), generator()

    def loss(source):
        return TimesWeight.apply(x @ source(), source()).sum() + network(x[:, :2]).sum()

    y = nn.Linear(WIDTH, WIDTH)
    held = preflight(lambda: loss(lambda: holder[0]) * y(x).sum(), holder, y)
    assert held.unmeasured is None
    bare = preflight(lambda: Bare.apply(weight).sum() * y(x).sum(), [weight], y)
    assert "parameter that belongs to none of the given" in bare.unmeasured
    assert set(bare.errors) == {"gradient", "order"}


class Bare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        ctx.save_for_backward(weight)
        return weight.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


def narrow(function):
    """Return ``function`` for float32 alone, as kernels are."""

    def run(x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise TypeError("expected float32\nand no other")
        return function(x)

    return run


def test_without_float64_gradients_and_orders_are_measured():
    report = healthy(Layer(narrow(torch.tanh)))
    assert report.unmeasured == "float64 does not work (TypeError: expected float32)"
    assert set(report.errors) == {"gradient", "order"}
    assert 0 < report.errors["gradient"] < 1e-2
    assert report.errors["order"] < 1e-4
    assert "not measured: float64 does not work" in str(report)


@pytest.mark.parametrize("kind", ["sign", "factor", "missing term", "hook", "reversal"])
def test_without_float64_wrong_gradients_are_found(kind):
    with pytest.raises(PreflightError, match="The gradient of `loss` for min_player"):
        healthy(Layer(narrow(FUNCTIONS[kind])))


def test_without_float64_orders_are_compared():
    fault = wrong(lambda ctx, x: x.clone(), lambda ctx, grad: FUNCTIONS["reversal"](grad))
    with pytest.raises(PreflightError, match="The two orders of differentiating `loss`"):
        healthy(Layer(narrow(fault)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_without_float64_little_is_measured_of_coarse_types(dtype):
    game = NetworkGame(dtype)
    layer = Layer(narrow(torch.tanh))
    report = preflight(lambda: layer(game.loss()), game.generator, game.critic)
    assert set(report.errors) == {"order"}
