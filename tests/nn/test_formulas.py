"""Derivatives of the fused layers against autograd through the layers written out."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.nn import functional

from compopt.nn import batch_norm, bias_activation, layer_norm

EPS = 1e-3


def leaky(y: Tensor, slope: float) -> Tensor:
    return torch.where(y > 0, y, slope * y)


def plain_norm(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Normalize in elementary operations: torch's own third derivatives treat the mean as fixed."""
    centered = x - x.mean(dims, keepdim=True)
    return centered / (centered.square().mean(dims, keepdim=True) + EPS).sqrt()


def plain_batch_norm(slope: float):
    def function(x, w, b):
        shape = [1, -1, *[1] * (x.dim() - 2)]
        x_hat = plain_norm(x, (0, *range(2, x.dim())))
        return leaky(x_hat * w.view(shape) + b.view(shape), slope)

    return function


def fused_batch_norm(slope: float):
    return lambda x, w, b: batch_norm(x, None, None, w, b, eps=EPS, slope=slope)


PLAIN_ACTIVATIONS = {
    "leaky_relu": lambda z: leaky(z, 0.2),
    "tanh": torch.tanh,
    "silu": lambda z: z * z.sigmoid(),
    "softplus": lambda z: (1 + z.exp()).log(),
}


def normal(*shape: int, shift: float = 0.0) -> Tensor:
    return (torch.randn(shape, dtype=torch.float64) * 1.5 + shift).requires_grad_()


def positive(*shape: int) -> Tensor:
    return (torch.rand(shape, dtype=torch.float64) + 0.5).requires_grad_()


def activation_case(kind: str):
    plain = PLAIN_ACTIVATIONS[kind]
    return (
        lambda x, b: bias_activation(x, b, kind, slope=0.2),
        lambda x, b: plain(x + b.view(1, -1, 1)),
        lambda: (normal(3, 4, 2), normal(4)),
    )


CASES = {
    f"batch_norm slope {slope} {len(shape)}d": (
        fused_batch_norm(slope),
        plain_batch_norm(slope),
        lambda shape=shape: (normal(*shape, shift=2.0), positive(shape[1]), normal(shape[1])),
    )
    for slope in (1.0, 0.0, 0.2)
    for shape in ((5, 3), (3, 4, 5), (4, 3, 2, 3))
}
CASES |= {
    f"layer_norm over {len(shape)}": (
        lambda x, w, b, shape=shape: layer_norm(x, shape, w, b, EPS),
        lambda x, w, b, shape=shape: plain_norm(x, tuple(range(-len(shape), 0))) * w + b,
        lambda shape=shape: (normal(3, 2, *shape, shift=2.0), positive(*shape), normal(*shape)),
    )
    for shape in ((5,), (2, 3))
}
CASES["layer_norm of one row"] = (
    lambda x, w, b: layer_norm(x, (7,), w, b, EPS),
    lambda x, w, b: plain_norm(x, (0,)) * w + b,
    lambda: (normal(7, shift=2.0), positive(7), normal(7)),
)
CASES["bias of one row"] = (
    lambda x, b: bias_activation(x, b, "silu", dim=0),
    lambda x, b: (x + b) * (x + b).sigmoid(),
    lambda: (normal(7), normal(7)),
)
CASES |= {f"bias and {kind}": activation_case(kind) for kind in PLAIN_ACTIVATIONS}


# One of each function and of what has no batch; the others differ in formulas alone.
FUNCTIONS = (
    "batch_norm slope 0.2 3d",
    "layer_norm over 2",
    "layer_norm of one row",
    "bias of one row",
    "bias and tanh",
)
each_function = pytest.mark.parametrize("case", FUNCTIONS, indirect=True)


@pytest.fixture(params=CASES)
def case(request):
    fused, plain, inputs = CASES[request.param]
    return fused, plain, inputs()


def derivatives(function, inputs, order: int) -> list[Tensor]:
    """Return the gradients of a scalar made from the output, of a scalar made from them, and on."""
    found, outputs = [], [function(*inputs)]
    for index in range(order):
        # Weights that differ, as projections vanish on constants.
        scalar = sum(
            (torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out) * out.sin()).sum()
            for out in outputs
        )
        outputs = torch.autograd.grad(
            scalar, inputs, create_graph=index < order - 1, materialize_grads=True
        )
        found += outputs
    return found


def assert_close(found, expected, rtol=1e-10):
    for ours, theirs in zip(found, expected, strict=True):
        scale = float(theirs.detach().abs().max())
        error = float((ours - theirs).detach().abs().max())
        assert error <= rtol * max(scale, 1.0), f"{error=} {scale=}"


def test_values_and_three_derivatives(case):
    fused, plain, inputs = case
    assert_close([fused(*inputs)], [plain(*inputs)])
    for order in (1, 2, 3):
        assert_close(derivatives(fused, inputs, order), derivatives(plain, inputs, order))


def test_gradcheck(case):
    fused, _, inputs = case
    assert gradcheck(fused, inputs, check_forward_ad=True)
    assert gradgradcheck(fused, inputs)


def test_each_part_of_the_second_derivative_alone(case):
    fused, plain, inputs = case

    def parts(function):
        y = function(*inputs)
        g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).requires_grad_()
        first = torch.autograd.grad(y, inputs, g, create_graph=True)
        return [
            torch.autograd.grad(
                one, wanted, torch.cos(one.detach()), retain_graph=True, materialize_grads=True
            )[0]
            for one in first
            if one.requires_grad
            for wanted in (g, *inputs)
        ]

    assert_close(parts(fused), parts(plain))


@each_function
def test_one_input_alone(case):
    fused, plain, inputs = case

    def of_one(function, kept):
        fixed = [other.detach() for other in inputs]
        return lambda one: function(*fixed[:kept], one, *fixed[kept + 1 :])

    for kept in range(len(inputs)):
        wanted = [inputs[kept]]
        found = [derivatives(of_one(function, kept), wanted, 2) for function in (fused, plain)]
        assert_close(*found)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: grad(lambda x: (grad(f)(x) ** 2).sum())(x),
        lambda f, x: jacrev(jacrev(f))(x),
        lambda f, x: jacrev(lambda x: jvp(f, (x,), (x.cos(),))[1])(x),
        lambda f, x: vmap(grad(lambda x: (grad(f)(x) ** 2).sum()))(torch.stack([x, x * x])),
    ],
    ids=["grad grad", "jacrev jacrev", "jacrev jvp", "vmap grad grad"],
)
@each_function
def test_function_transforms(case, transform):
    fused, plain, (x, *rest) = case
    rest = [t.detach() for t in rest]
    found = [transform(lambda x, f=f: (f(x, *rest) ** 3).sum(), x.detach()) for f in (fused, plain)]
    assert_close(found[:1], found[1:])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@each_function
def test_batched_gradients(case):
    fused, plain, inputs = case
    vectors = torch.randn(3, *plain(*inputs).shape, dtype=torch.float64)
    found = [
        torch.autograd.grad(f(*inputs), inputs, vectors, is_grads_batched=True)
        for f in (fused, plain)
    ]
    assert_close(*found)


@pytest.mark.parametrize("transform", [hessian, lambda f: jacfwd(grad(f))], ids=["hessian", "fwd"])
@each_function
def test_forward_mode_over_the_backward_pass_is_refused(case, transform):
    fused, _, (x, *rest) = case
    rest = [t.detach() for t in rest]
    with pytest.raises(RuntimeError, match="unfuse"):
        transform(lambda x: (fused(x, *rest) ** 3).sum())(x.detach())


@each_function
def test_tangents_pass_through_a_backward_pass_that_is_not_recorded(case):
    fused, plain, (x, *rest) = case

    def tangent(function):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, x.detach().cos())
            (gradient,) = torch.autograd.grad((function(dual, *rest) ** 3).sum(), dual)
            return forward_ad.unpack_dual(gradient).tangent

    assert_close([tangent(fused)], [tangent(plain)])


FLOAT32_RTOL = 2e-5
"""Sums over 168 entries around 2 carry an error of about 1e-6 of the largest; the cancellation in P
and against the mean costs an order of magnitude."""


def both_backward_passes(function, inputs, vectors) -> list[Tensor]:
    y = function(*inputs)
    g = vectors[0].to(y.dtype).requires_grad_()
    first = torch.autograd.grad(y, inputs, g, create_graph=True)
    cotangents = [v.to(one.dtype) for v, one in zip(vectors[1:], first, strict=True)]
    return [*first, *torch.autograd.grad(first, [g, *inputs[:2]], cotangents)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layouts_in_float32(memory_format):
    inputs = normal(6, 5, 4, 7, shift=2.0), positive(5), normal(5)
    narrow = [t.detach().float().requires_grad_() for t in inputs]
    laid_out = narrow[0].detach().contiguous(memory_format=memory_format).requires_grad_()
    y = fused_batch_norm(0.2)(laid_out, *narrow[1:])
    assert y.is_contiguous(memory_format=memory_format)
    vectors = [torch.randn_like(t) for t in (inputs[0], *inputs)]
    found = both_backward_passes(fused_batch_norm(0.2), [laid_out, *narrow[1:]], vectors)
    expected = both_backward_passes(plain_batch_norm(0.2), inputs, vectors)
    assert_close(found, expected, FLOAT32_RTOL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_inputs_with_float32_parameters(dtype):
    rtol = {torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    x, w, b = normal(6, 5, 4, 7), positive(5), normal(5)
    narrow = x.detach().to(dtype).requires_grad_()
    parameters = [t.detach().float().requires_grad_() for t in (w, b)]
    exact = [t.detach().double().requires_grad_() for t in (narrow, *parameters)]
    vectors = [torch.randn_like(t).to(dtype) for t in (x, x, w, b)]
    found = both_backward_passes(fused_batch_norm(1.0), [narrow, *parameters], vectors)
    expected = both_backward_passes(plain_batch_norm(1.0), exact, vectors)
    kinds = [dtype, torch.float32, torch.float32, dtype, dtype, torch.float32]
    assert [t.dtype for t in found] == kinds
    assert_close([t.double() for t in found], expected, rtol)


def test_large_softplus_is_linear_as_in_torch():
    x = torch.tensor([-30.0, 0.0, 19.9, 20.1, 500.0], dtype=torch.float64, requires_grad=True)
    fused = derivatives(lambda x: bias_activation(x, None, "softplus"), [x], 2)
    assert_close(fused, derivatives(functional.softplus, [x], 2))


def test_bad_arguments():
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match="`slope` must be at least 0, got -1"):
        batch_norm(x, None, None, slope=-1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm(x[:1], None, None)
    with pytest.raises(ValueError, match=r"`kind` must be one of .* got 'gelu'"):
        bias_activation(x, None, "gelu")
    with pytest.raises(ValueError, match="`slope` must be at least 0"):
        bias_activation(x, None, "leaky_relu", slope=float("nan"))
