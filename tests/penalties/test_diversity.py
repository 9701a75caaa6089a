"""Diversity: cosines of filters against banks whose angles are known."""

import math

import pytest
import torch
from dense import assert_close
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrizations

from compopt.penalties import Diversity, GeometricThreshold, Layers, cosines, diversity_penalty


def at_angles(*degrees: float) -> Tensor:
    """Return rows of unlike length at these angles to the first axis."""
    angles = torch.tensor([math.radians(angle) for angle in degrees], dtype=torch.float64)
    lengths = torch.arange(1, len(degrees) + 1, dtype=torch.float64)
    return lengths.unsqueeze(1) * torch.stack([angles.cos(), angles.sin()], dim=1)


def cos2(degrees: float) -> float:
    return math.cos(math.radians(degrees)) ** 2


class TestPenalty:
    def test_an_orthogonal_bank_costs_nothing_at_any_threshold(self):
        rows = 3 * torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q[:4]
        assert float(diversity_penalty(rows, threshold=0.0)) == pytest.approx(0, abs=1e-28)

    def test_all_pairs_count_twice_without_threshold(self):
        rows = at_angles(0, 30, 90)
        expected = 2 * (cos2(30) + cos2(90) + cos2(60))
        assert float(diversity_penalty(rows, threshold=0.0)) == pytest.approx(expected, rel=1e-12)

    def test_both_signs_with_thresholds_of_their_own(self):
        rows = at_angles(0, 50, 170)  # cosines .643, -.985, -.5
        positive, negative, small = cos2(50), cos2(170), cos2(120)
        for (tau, minus), expected in {
            (0.6, 0.6): positive + negative,
            (0.7, 0.6): negative,
            (0.6, 0.99): positive,
            (0.7, 0.4): negative + small,
            (0.7, 0.99): 0.0,
        }.items():
            value = diversity_penalty(rows, threshold=tau, negative_threshold=minus)
            assert float(value) == pytest.approx(2 * expected, rel=1e-12), (tau, minus)
        both = diversity_penalty(rows, threshold=0.6)
        assert float(both) == pytest.approx(2 * (positive + negative), rel=1e-12)

    def test_gradient_pushes_a_pair_apart(self):
        """d(2 cos^2 t)/dt = -2 sin 2t along the circle, nothing along the radius."""
        rows = at_angles(0, 40).requires_grad_()
        (grad,) = torch.autograd.grad(diversity_penalty(rows, threshold=0.5), rows)
        t = math.radians(40)
        tangent = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)
        radius = torch.tensor([math.cos(t), math.sin(t)], dtype=torch.float64)
        assert float(grad[1] @ tangent) == pytest.approx(-2 * math.sin(2 * t) / 2, rel=1e-12)
        assert float(grad[1] @ radius) == pytest.approx(0, abs=1e-14)

    def test_derivatives_by_finite_differences(self):
        rows = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
        assert gradcheck(diversity_penalty, (rows,))
        assert gradgradcheck(diversity_penalty, (rows,))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    def test_zero_rows_cost_nothing_and_are_finite(self, dtype):
        rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], dtype=dtype, requires_grad=True)
        value = diversity_penalty(rows, threshold=0.1)
        assert float(value.detach()) == pytest.approx(1.0, rel=1e-2)
        (grad,) = torch.autograd.grad(value, rows, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), rows)
        assert torch.isfinite(grad).all()
        assert torch.isfinite(second).all()
        assert torch.equal(grad[0], torch.zeros_like(grad[0]))
        assert float(cosines(rows.detach())[0].abs().sum()) == 0


def loop_over_filters(layer: nn.Module, tau: float) -> float:
    """Return the penalty of a layer, filter by filter, from what each output multiplies with."""
    weight, groups = layer.weight.detach(), layer.groups
    total = 0.0
    for group in range(groups):
        if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            inputs = layer.in_channels // groups
            part = weight[group * inputs : (group + 1) * inputs]
            filters = [part[:, i].reshape(-1) for i in range(part.shape[1])]
        else:
            outputs = layer.out_channels // groups
            filters = [weight[group * outputs + i].reshape(-1) for i in range(outputs)]
        for i, one in enumerate(filters):
            for j, other in enumerate(filters):
                c = float(torch.cosine_similarity(one, other, dim=0))
                total += c**2 if i != j and abs(c) > tau else 0.0
    return total


CONVOLUTIONS = {
    "Conv1d": lambda: nn.Conv1d(4, 6, 3),
    "Conv2d": lambda: nn.Conv2d(4, 6, 3),
    "Conv3d": lambda: nn.Conv3d(2, 4, 2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(4, 6, 3),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, 3),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(2, 4, 2),
    "grouped transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_filters_are_those_of_the_outputs(name):
    layer = CONVOLUTIONS[name]().double()
    value = Diversity(2.0, threshold=0.1)(layer)
    expected = 2 * loop_over_filters(layer, 0.1)
    assert expected > 0
    assert float(value.detach()) == pytest.approx(expected, rel=1e-10)


def test_a_linear_layer_has_a_filter_for_each_output():
    layer = nn.Linear(2, 3, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(at_angles(0, 30, 90))
    value = Diversity(1.0, threshold=0.0, layers=Layers(kinds=("linear",)))(layer)
    assert float(value.detach()) == pytest.approx(2 * (cos2(30) + cos2(60)), rel=1e-12)


def test_depthwise_filters_have_no_rival():
    assert float(Diversity(threshold=0.0)(nn.Conv2d(4, 4, 3, groups=4)).detach()) == 0.0


def test_layers_add_up_and_can_be_chosen():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)).double()
    parts = [float(Diversity(1.0, threshold=0.0)(net[i]).detach()) for i in range(2)]
    linear = Layers(kinds=("linear",))
    last = float(Diversity(1.0, threshold=0.0, layers=linear)(net[2]).detach())
    for layers, expected in (
        (Layers(), parts[0] + parts[1]),
        (Layers(image_channels=3), parts[1]),
        (Layers(skip=("1",)), parts[0]),
        (linear, last),
        (Layers(kinds=("conv", "linear")), sum(parts) + last),
    ):
        value = Diversity(1.0, threshold=0.0, layers=layers)(net)
        assert float(value.detach()) == pytest.approx(expected, rel=1e-12)


def test_frozen_layers_are_left_out():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3))
    net[0].requires_grad_(False)
    expected = Diversity(threshold=0.0)(net[1])
    assert_close(Diversity(threshold=0.0)(net).detach(), expected.detach(), 1e-7)


def test_spectral_normalization_changes_nothing_and_is_not_advanced():
    torch.manual_seed(1)
    layer = nn.Conv2d(4, 6, 3).double()
    plain = Diversity(threshold=0.05)(layer).detach()
    parametrizations.spectral_norm(layer)
    buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    assert buffers
    value = Diversity(threshold=0.05)(layer)
    assert_close(value.detach(), plain, 1e-12)
    assert all(torch.equal(b, buffers[name]) for name, b in layer.named_buffers())
    assert all(part.training for part in layer.modules())
    value.backward()
    assert layer.parametrizations.weight.original.grad.abs().sum() > 0


def test_thresholds_follow_their_schedule():
    rising = GeometricThreshold(start=0.1, factor=1.1, every=10, limit=0.5)
    assert [rising(epoch) for epoch in (0, 9, 10, 25)] == pytest.approx([0.1, 0.1, 0.11, 0.121])
    assert rising(1000) == 0.5
    falling = GeometricThreshold(start=0.9, factor=0.8, every=1, limit=0.3)
    assert [falling(epoch) for epoch in (0, 1, 30)] == pytest.approx([0.9, 0.72, 0.3])
    layer = nn.Conv2d(2, 2, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(at_angles(0, 40).reshape(2, 2, 1, 1))  # cosine .766
    scheduled = Diversity(1.0, threshold=falling)
    values = [float(scheduled(layer, epoch=epoch).detach()) for epoch in (0, 1)]
    assert values == pytest.approx([0.0, 2 * cos2(40)])
    minus = Diversity(1.0, threshold=1.0, negative_threshold=falling)
    with torch.no_grad():
        layer.weight[1].neg_()
    values = [float(minus(layer, epoch=epoch).detach()) for epoch in (0, 1)]
    assert values == pytest.approx([0.0, 2 * cos2(40)])


def test_bad_input():
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\]"):
        Diversity(threshold=1.5)
    with pytest.raises(ValueError, match="`negative_threshold` must be finite and not negative"):
        Diversity(negative_threshold=-0.5)
    with pytest.raises(ValueError, match="`limit` must be"):
        GeometricThreshold(limit=2.0)
    with pytest.raises(ValueError, match=r"`rows` must have shape \[\.\.\., n, d\], got \(3,\)"):
        diversity_penalty(torch.ones(3))
    with pytest.raises(ValueError, match="`epoch` must be at least 0"):
        Diversity()(nn.Conv2d(2, 2, 1), epoch=-1)
