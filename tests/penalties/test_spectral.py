"""SR-GAN's projection and the spectral penalty, against given singular values."""

import copy

import pytest
import torch
from dense import assert_close
from layers_with_spectra import VALUES, conv_with, matrix_of, network, with_values
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrizations, spectral_norm

from compopt.penalties import Layers, SpectralPenalty, SpectralRegularizer


class TestProjection:
    @pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
    @pytest.mark.parametrize("normalize", [True, False])
    def test_static(self, transposed, normalize):
        layer = conv_with(transposed=transposed)
        before = matrix_of(layer)
        assert SpectralRegularizer(layer, every=1, normalize=normalize).step()
        # i = r / 2 = 3: W + sum_k (sigma_1 - sigma_k) u_k v_k^T, divided by sigma_1.
        left, sigma, right = torch.linalg.svd(before, full_matrices=False)
        raised = torch.where(torch.arange(6) < 3, sigma[0], sigma)
        expected = left @ torch.diag(raised) @ right
        assert_close(matrix_of(layer), expected / sigma[0] if normalize else expected, 1e-12)
        # And it is a projection.
        SpectralRegularizer(layer, every=1, normalize=normalize).step()
        assert_close(matrix_of(layer), expected / sigma[0] if normalize else expected, 1e-12)

    def test_one_value_is_spectral_normalization_and_all_of_them_orthogonal(self):
        layer = conv_with()
        before = matrix_of(layer)
        SpectralRegularizer(layer, every=1, share=0.01).step()
        assert_close(matrix_of(layer), before / 4, 1e-12)
        SpectralRegularizer(layer, every=1, share=1.0).step()
        rows = matrix_of(layer)
        assert_close(rows @ rows.T, torch.eye(6, dtype=torch.float64), 1e-12)

    def test_dynamic(self):
        layer = conv_with()
        regularizer = SpectralRegularizer(layer, mode="dynamic", every=1)
        regularizer.step()
        spectrum = VALUES / 4
        assert_close(torch.linalg.svdvals(matrix_of(layer)), spectrum, 1e-12)
        # Some values rise and some fall: the first are kept, the latter raised again.
        changed = torch.tensor([2.0, 1.9, 0.4, 0.3, 0.2, 0.15], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(with_values(changed, 6, 8, seed=4).view(6, 2, 2, 2))
        regularizer.step()
        expected = torch.maximum(spectrum, changed / 2)
        assert_close(torch.linalg.svdvals(matrix_of(layer)), expected, 1e-12)
        assert_close(regularizer.maxima[""], expected, 1e-12)

    def test_dynamic_as_released_keeps_the_norm(self):
        layer = conv_with()
        regularizer = SpectralRegularizer(layer, mode="dynamic", every=1, normalize=False)
        regularizer.observe()
        with torch.no_grad():
            layer.weight.copy_(with_values(VALUES**2, 6, 8).view(6, 2, 2, 2))
        regularizer.step()
        assert_close(torch.linalg.svdvals(matrix_of(layer)), 16 * VALUES / 4, 1e-12)

    def test_observing_changes_no_weight(self):
        layer = conv_with()
        before = layer.weight.detach().clone()
        regularizer = SpectralRegularizer(layer, mode="dynamic")
        regularizer.observe()
        assert torch.equal(layer.weight, before)
        assert_close(regularizer.maxima[""], VALUES / 4, 1e-12)

    def test_every_fifth_step(self):
        layer = conv_with()
        regularizer = SpectralRegularizer(layer)
        assert [regularizer.step() for _ in range(11)] == [i % 5 == 4 for i in range(11)]

    def test_chosen_layers_alone_change(self):
        net = network()
        before = copy.deepcopy(net)
        SpectralRegularizer(net, every=1, layers=Layers(image_channels=3, skip=("2",))).step()
        changed = [
            name
            for name, p in net.named_parameters()
            if not torch.equal(p, before.get_parameter(name))
        ]
        assert changed == ["1.weight"]

    def test_a_layer_of_zeros_stays(self):
        layer = nn.Conv2d(2, 6, 2)
        nn.init.zeros_(layer.weight)
        SpectralRegularizer(layer, every=1).step()
        assert torch.equal(layer.weight, torch.zeros_like(layer.weight))

    def test_half_precision_weights(self):
        layer = conv_with().bfloat16()
        SpectralRegularizer(layer, every=1).step()
        assert layer.weight.dtype == torch.bfloat16
        top = torch.linalg.svdvals(matrix_of(layer).float())
        assert_close(top[:3], torch.ones(3), 0.02)

    @pytest.mark.parametrize("mode", ["static", "dynamic"])
    def test_a_resumed_run_is_the_same(self, mode):
        def train(net: nn.Module, regularizer: SpectralRegularizer, steps: range) -> None:
            for step in steps:
                generator = torch.Generator().manual_seed(step)
                with torch.no_grad():
                    for param in net.parameters():
                        param += 0.1 * torch.randn(param.shape, generator=generator).double()
                regularizer.step()

        whole = network()
        train(whole, SpectralRegularizer(whole, mode=mode, every=3), range(14))
        part = network()
        first = SpectralRegularizer(part, mode=mode, every=3)
        train(part, first, range(7))
        saved = copy.deepcopy(first.state_dict())
        second = SpectralRegularizer(part, mode=mode, every=3)
        second.load_state_dict(saved)
        train(part, second, range(7, 14))
        assert all(
            torch.equal(p, q) for p, q in zip(whole.parameters(), part.parameters(), strict=True)
        )
        # What was saved is no view of what runs on.
        assert saved["num_steps"] == 7
        maxima = second.state_dict()["maxima"]
        moved = [name for name in maxima if not torch.equal(saved["maxima"][name], maxima[name])]
        assert bool(moved) == (mode == "dynamic")

    def test_state_of_another_network_is_refused(self):
        regularizer = SpectralRegularizer(network(), mode="dynamic")
        regularizer.observe()
        other = SpectralRegularizer(network(), mode="dynamic", layers=Layers(skip=("0",)))
        with pytest.raises(ValueError, match="belong to another network"):
            other.load_state_dict(regularizer.state_dict())

    def test_state_survives_saving_with_weights_only(self, tmp_path):
        regularizer = SpectralRegularizer(network(), mode="dynamic", every=1)
        regularizer.step()
        torch.save(regularizer.state_dict(), tmp_path / "state.pt")
        other = SpectralRegularizer(network(), mode="dynamic", every=1)
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert other.num_steps == 1
        assert torch.equal(other.maxima["1"], regularizer.maxima["1"])


NORMALIZATIONS = {"parametrization": parametrizations.spectral_norm, "hook": spectral_norm}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.spectral_norm`:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_beside_spectral_normalization(kind):
    """The original is written in place; what the layer multiplies with has the new spectrum."""
    layer = NORMALIZATIONS[kind](conv_with())
    original = (
        layer.parametrizations.weight.original if kind == "parametrization" else layer.weight_orig
    )
    address = original.data_ptr()
    optimizer = torch.optim.Adam(layer.parameters())
    regularizer = SpectralRegularizer(layer, every=1)
    buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    regularizer.step()
    assert all(torch.equal(b, buffers[name]) for name, b in layer.named_buffers())
    assert original.data_ptr() == address
    assert any(p is original for group in optimizer.param_groups for p in group["params"])
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    for _ in range(200):
        layer(x)
    values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    assert_close(values, torch.tensor([1, 1, 1, 0.375, 0.25, 0.05], dtype=torch.float64), 1e-6)


class TestPenalty:
    def test_static_value(self):
        # i = 3 of 6: (1 - 1)^2, (1 - 3/4)^2, (1 - 1/2)^2.
        expected = 2.0 * (0.25**2 + 0.5**2) / 3
        for layer in (conv_with(), conv_with(transposed=True)):
            value = SpectralPenalty(2.0)(layer)
            assert float(value.detach()) == pytest.approx(expected, rel=1e-12)

    def test_dynamic_value_counts_what_has_fallen(self):
        maxima = {"": torch.tensor([1.0, 0.9, 0.4, 0.5, 0.25, 0.0], dtype=torch.float64)}
        value = SpectralPenalty(3.0)(conv_with(), maxima)
        assert float(value.detach()) == pytest.approx(3 * (0.15**2 + 0.125**2) / 6, rel=1e-12)

    def test_gradient_along_singular_vectors(self):
        """dP/dsigma_k = -2 (1 - s_k) / (3 sigma_1), and for sigma_1 what keeps P without scale."""
        layer = conv_with()
        SpectralPenalty()(layer).backward()
        left, sigma, right = torch.linalg.svd(matrix_of(layer), full_matrices=False)
        along = torch.diag(left.T @ layer.weight.grad.flatten(1) @ right.T)
        s = sigma / sigma[0]
        expected = torch.where(torch.arange(6) < 3, -2 * (1 - s) / (3 * sigma[0]), 0.0)
        expected[0] = -(expected[1:] * s[1:]).sum()
        assert_close(along, expected, 1e-10)
        off = left.T @ layer.weight.grad.flatten(1) @ right.T - torch.diag(along)
        assert float(off.abs().max()) < 1e-12

    def test_derivatives_by_finite_differences(self):
        layer = conv_with()

        def penalty(weight: Tensor) -> Tensor:
            return torch.func.functional_call(Wrapped(layer), {"layer.weight": weight}, ())

        weight = layer.weight.detach().clone().requires_grad_()
        assert gradcheck(penalty, (weight,))
        assert gradgradcheck(penalty, (weight,))

    @pytest.mark.parametrize("values", [torch.ones(6), torch.zeros(6)], ids=["orthogonal", "zero"])
    def test_gradient_is_finite_for_equal_singular_values(self, values):
        layer = conv_with(values.double())
        value = SpectralPenalty()(layer)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(layer.weight.grad).all()

    def test_descent_approaches_the_projection(self):
        layer = conv_with()
        optimizer = torch.optim.SGD(layer.parameters(), lr=2.0)
        for _ in range(300):
            optimizer.zero_grad()
            value = SpectralPenalty()(layer)
            value.backward()
            optimizer.step()
        assert float(value.detach()) < 1e-6
        values = torch.linalg.svdvals(matrix_of(layer))
        assert float(values[2] / values[0]) > 0.99

    def test_maxima_of_another_network_are_refused(self):
        with pytest.raises(ValueError, match="belong to another network"):
            SpectralPenalty()(conv_with(), {"": torch.ones(3)})

    def test_spectral_normalization_is_not_advanced(self):
        layer = parametrizations.spectral_norm(conv_with())
        buffers = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        value = SpectralPenalty()(layer)
        assert float(value.detach()) == pytest.approx((0.25**2 + 0.5**2) / 3, rel=1e-12)
        assert all(torch.equal(b, buffers[name]) for name, b in layer.named_buffers())


class Wrapped(nn.Module):
    """The penalty of a layer as the layer's own forward pass."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> Tensor:
        return SpectralPenalty()(self.layer)


def test_bad_input():
    conv = conv_with()
    with pytest.raises(ValueError, match="`mode` must be one of 'static', 'dynamic'"):
        SpectralRegularizer(conv, mode="both")
    with pytest.raises(ValueError, match=r"`share` must be in \(0, 1\], got 1.5"):
        SpectralRegularizer(conv, share=1.5)
    with pytest.raises(ValueError, match="`share` must be positive"):
        SpectralPenalty(share=0.0)
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        SpectralRegularizer(conv, every=0)
    weight_normed = parametrizations.weight_norm(nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match=r"Layer '' .* must have a weight, or one original"):
        SpectralRegularizer(weight_normed)
