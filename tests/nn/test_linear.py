"""The linear layer with a joined second backward pass, against torch's own."""

import pytest
import torch
from kernel_checks import needs_wide_products
from strict_interpreter import strict
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jvp, vjp, vmap
from torch.nn import functional

from compopt.kernels import use_backend
from compopt.nn import linear

BIASED = pytest.mark.parametrize("biased", [True, False], ids=["bias", "none"])


def inputs(*leading, biased=True, requires_grad=True):
    shapes = [(*leading, 5), (3, 5), *([(3,)] if biased else [])]
    return tuple(
        torch.randn(shape, dtype=torch.float64, requires_grad=requires_grad) for shape in shapes
    )


@BIASED
@pytest.mark.parametrize("leading", [(4,), (), (2, 3)], ids=str)
def test_gradcheck_and_gradgradcheck(leading, biased):
    given = inputs(*leading, biased=biased)
    assert gradcheck(linear, given, check_forward_ad=True)
    assert gradgradcheck(linear, given, check_fwd_over_rev=True)


@BIASED
def test_third_derivatives(biased):
    given = inputs(2, biased=biased)
    results = []
    for layer in (linear, functional.linear):
        out = layer(*given).square().sum()
        (first,) = torch.autograd.grad(out, given[0], create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), given[1], create_graph=True)
        results.append(torch.autograd.grad(second.square().sum(), given[:2]))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def second_derivatives(layer, given):
    """Return everything that two backward passes and forward mode give."""
    v = [torch.ones_like(t) for t in given]
    first = torch.autograd.grad(layer(*given).sin().sum(), given, create_graph=True)
    cotangent = sum((f * d).sum() for f, d in zip(first, v, strict=True))
    second = torch.autograd.grad(cotangent, given, allow_unused=True)
    detached = tuple(t.detach() for t in given)
    return [*first, *second, *jvp(layer, detached, tuple(v))]


@needs_wide_products
@BIASED
def test_the_kernel_takes_part_in_the_second_pass_and_in_forward_mode(biased):
    given = inputs(4, biased=biased)
    with use_backend("triton"), strict() as run:
        ours = second_derivatives(linear, given)
    assert run.launches == ["linear_tangent_kernel"] * 2
    for mine, theirs in zip(ours, second_derivatives(functional.linear, given), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("frozen", [(), (0,), (1,)], ids=str)
def test_parts_of_the_derivatives(wanted, frozen):
    """Inputs without a gradient, and cotangents that are missing."""
    given = inputs(4)
    results = []
    for layer in (linear, functional.linear):
        leaves = [t.detach().requires_grad_(i not in frozen) for i, t in enumerate(given)]
        wrt = [leaves[i] for i in wanted if i not in frozen]
        if not wrt:
            return
        first = torch.autograd.grad(layer(*leaves).pow(2).sum(), wrt, create_graph=True)
        alive = [leaf for leaf in leaves if leaf.requires_grad]
        total = sum(f.pow(2).sum() for f in first)
        results.append([*first, *torch.autograd.grad(total, alive)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_function_transforms():
    x, weight, bias = inputs(4, requires_grad=False)

    def value(layer):
        return lambda w: layer(x, w, bias).tanh().sum()

    for transform in (hessian, grad):
        ours, theirs = (transform(value(layer))(weight) for layer in (linear, functional.linear))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    per_sample = vmap(grad(lambda row: linear(row, weight, bias).tanh().sum()))(x)
    plain = vmap(grad(lambda row: functional.linear(row, weight, bias).tanh().sum()))(x)
    torch.testing.assert_close(per_sample, plain, rtol=1e-12, atol=1e-12)
    _, pull = vjp(lambda w: linear(x, w, bias), weight)
    torch.testing.assert_close(pull(torch.ones(4, 3).double())[0], torch.ones(3, 4).double() @ x)


def test_a_layer_of_the_users_own():
    class Layer(torch.nn.Linear):
        def forward(self, x):
            return linear(x, self.weight, self.bias)

    layer = Layer(5, 3).double()
    x = torch.randn(2, 5, dtype=torch.float64)
    plain = functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(functional_call(layer, dict(layer.named_parameters()), x), plain)


def test_under_autocast_it_is_torchs_own():
    x, weight, bias = (t.detach().float() for t in inputs(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
