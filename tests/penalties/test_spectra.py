"""Singular values of layers and power iteration, against torch and given values."""

from itertools import pairwise

import pytest
import torch
from dense import assert_close
from layers_with_spectra import VALUES, network, with_values

from compopt.penalties import Layers, block_power_iteration
from compopt.penalties.spectra import batched_svd, singular_values, weight_matrices

BOTH = Layers(kinds=("conv", "linear"))


class TestSpectra:
    def test_agree_with_torch_in_batches(self):
        net = network()
        values = singular_values(weight_matrices(net, BOTH))
        parts = batched_svd(weight_matrices(net, BOTH))
        assert set(values) == {"0", "1", "2", "4"}
        for name in values:
            matrix = net[int(name)].weight.detach().flatten(1)
            assert_close(values[name], torch.linalg.svdvals(matrix), 1e-12)
            left, sigma, right = parts[name]
            assert_close(left @ torch.diag(sigma) @ right, matrix, 1e-12)

    def test_layers_of_one_shape_are_decomposed_at_once(self, monkeypatch):
        calls = []
        original = torch.linalg.svd
        monkeypatch.setattr(
            torch.linalg, "svd", lambda a, **kw: calls.append(a.shape) or original(a, **kw)
        )
        batched_svd(weight_matrices(network(), BOTH))
        assert sorted(calls) == [(1, 5, 24), (1, 6, 27), (2, 6, 54)]

    @pytest.mark.parametrize("shape", [(6, 8), (8, 6), (6, 6)], ids=str)
    @pytest.mark.parametrize("count", [1, 3, 6])
    def test_power_iteration_agrees_with_torch(self, shape, count):
        matrix = with_values(VALUES, *shape)
        generator = torch.Generator().manual_seed(0)
        values, basis = block_power_iteration(matrix, count, num_iter=60, generator=generator)
        assert_close(values, torch.linalg.svdvals(matrix)[:count], 1e-12)
        assert basis.shape == (shape[1], count)
        assert_close(basis.T @ basis, torch.eye(count, dtype=torch.float64), 1e-12)

    def test_power_iteration_has_the_stated_rate_and_stays_below(self):
        matrix = with_values(VALUES, 6, 8)
        start = torch.randn(8, 2, dtype=torch.float64)
        errors = []
        for num_iter in (4, 5, 6, 7):
            values, _ = block_power_iteration(matrix, 2, num_iter=num_iter, start=start)
            assert (values <= VALUES[:2] * (1 + 1e-14)).all()
            errors.append(float(VALUES[0] - values[0]))
        rate = (VALUES[2] / VALUES[0]) ** 4
        for one, next_one in pairwise(errors):
            assert next_one / one == pytest.approx(float(rate), rel=0.1)

    def test_power_iteration_goes_on_from_its_basis(self):
        matrix = with_values(VALUES, 6, 8)
        start = torch.randn(8, 2, dtype=torch.float64)
        _, basis = block_power_iteration(matrix, 2, num_iter=3, start=start)
        resumed, _ = block_power_iteration(matrix, 2, num_iter=4, start=basis)
        at_once, _ = block_power_iteration(matrix, 2, num_iter=7, start=start)
        assert_close(resumed, at_once, 1e-12)

    def test_power_iteration_of_half_precision(self):
        matrix = with_values(VALUES, 6, 8).bfloat16()
        values, _ = block_power_iteration(matrix, 2, num_iter=40)
        assert values.dtype == torch.float32
        assert_close(values, torch.linalg.svdvals(matrix.double())[:2].float(), 1e-5)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"`matrix` must have shape \[n, d\]"):
            block_power_iteration(torch.ones(3))
        with pytest.raises(ValueError, match="`num_values` must be at most 2"):
            block_power_iteration(torch.ones(3, 2), 3)
        with pytest.raises(ValueError, match=r"`start` must have shape \(2, 1\)"):
            block_power_iteration(torch.ones(3, 2), start=torch.ones(3, 1))
