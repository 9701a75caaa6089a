"""Which form a fused layer takes, and that its third derivatives are exact."""

import pytest
import torch
from torch import nn

from compopt.nn import fuse, unfuse


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm3d(2), (3, 2, 2, 1, 2)),
        (nn.InstanceNorm1d(2), (3, 2, 4)),
        (nn.InstanceNorm2d(2, affine=True), (3, 2, 2, 3)),
        (nn.InstanceNorm3d(2, affine=True), (1, 2, 2, 1, 2)),
    ],
    ids=str,
)
def test_third_derivatives_are_those_of_the_layer_written_out(layer, shape):
    """Torch's own take part of the statistics for constant."""
    dims = (0, 2, 3, 4) if isinstance(layer, nn.BatchNorm3d) else tuple(range(2, len(shape)))
    layer.double()
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True)]
    if layer.affine:
        for param in layer.parameters():
            nn.init.normal_(param)
            inputs.append(param)
    affine = [(2, *[1] * (len(shape) - 2))] * 2

    def written_out() -> torch.Tensor:
        x, *rest = inputs
        centered = x - x.mean(dims, keepdim=True)
        y = centered / (centered.square().mean(dims, keepdim=True) + layer.eps).sqrt()
        weight, bias = (p.view(s) for p, s in zip(rest, affine, strict=True)) if rest else (1, 0)
        return y * weight + bias

    fuse(layer)
    found = []
    for form in (lambda: layer(inputs[0]), written_out):
        scalar, derivatives = form().sin().mul(form().tanh()).sum(), []
        for order in range(3):
            grads = torch.autograd.grad(scalar, inputs, create_graph=order < 2)
            derivatives += grads
            scalar = sum((grad.sin() * grad).sum() for grad in grads)
        found.append(derivatives)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", [nn.LayerNorm(4), nn.BatchNorm1d(4), nn.SiLU()], ids=str)
def test_small_inputs_use_torchs_own_code_where_that_is_asked_for(layer):
    fuse(layer, min_size=40)
    names = [layer(torch.randn(rows, 4, requires_grad=True)).grad_fn.name() for rows in (9, 10)]
    assert ["Function" in name or name.startswith("_") for name in names] == [False, True]
    unfuse(layer)
    fuse(layer)
    assert "_" in layer(torch.randn(9, 4, requires_grad=True)).grad_fn.name()[:1]


def test_small_activations_use_torchs_own_code_on_a_cpu(monkeypatch):
    monkeypatch.undo()
    layer = nn.SiLU()
    fuse(layer)
    x = torch.randn(2, 4, requires_grad=True)
    assert layer(x).grad_fn.name() == "SiluBackward0"
    large = torch.randn(2, 2**18, requires_grad=True)
    assert layer(large).grad_fn.name() != "SiluBackward0"
