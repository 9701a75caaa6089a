"""Nothing that autograd may have saved is written to: layers, products, a whole step."""

import pytest
import torch
from strict_interpreter import strict
from torch import nn

from benchmarks.kernels.registry import entries
from compopt import ACGD, ConjugateGradient
from compopt.kernels import use_backend
from compopt.nn import _layers, fuse

PENALTIES = {"gram_strip_kernel", "gram_product_kernel", "linear_tangent_kernel"}
"""Kernels that no step of these networks launches."""


class Kept:
    """Tensors that autograd saves, with copies of what they held."""

    def __init__(self):
        self.pairs = []

    def pack(self, tensor):
        self.pairs.append((tensor.detach(), tensor.detach().clone(), tensor._version))
        return tensor

    def assert_untouched(self):
        assert self.pairs
        for tensor, copy, version in self.pairs:
            assert torch.equal(tensor, copy)
            assert tensor._version == version


class Watched(ACGD):
    """Looks at saved tensors before the parameters, which are among them, are moved."""

    def _finish(self, *args):
        self.kept.assert_untouched()
        super()._finish(*args)


@pytest.mark.parametrize("solve_for", ["min", pytest.param("max", marks=pytest.mark.slow)])
def test_a_step_leaves_saved_tensors_alone(solve_for, monkeypatch):
    monkeypatch.setattr(_layers, "ACTIVATIONS_GAIN_FROM", {})
    generator = nn.Sequential(
        *(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU()),
        *(nn.Linear(8, 6), nn.LayerNorm(6), nn.SiLU(), nn.Linear(6, 4)),
    )
    critic = nn.Sequential(
        *(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.2)),
        # Curvature is met in the critic alone: its gradients depend on the generator through it.
        *(nn.Linear(8, 5), nn.LayerNorm(5), nn.Softplus(), nn.Linear(5, 1)),
    )
    for network in (generator, critic):
        fuse(network)
    optimizer = Watched(
        generator.parameters(),
        critic.parameters(),
        lr=1e-2,
        solver=ConjugateGradient(rtol=0.0, max_iter=2),
        solve_for=solve_for,
        backend="triton",
    )
    launched = set()
    for _ in range(2):
        optimizer.kept = kept = Kept()
        hooks = torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor)
        # Tables hold addresses that a launch does not name, so bounds are not looked at here.
        noted = pytest.MonkeyPatch()
        noted.setattr("strict_memory.Memory.touch", lambda *args: None)
        with hooks, use_backend("triton"), strict() as run:
            noise, real = torch.randn(5, 3), torch.randn(5, 4)
            loss = critic(real).mean() - critic(generator(noise)).mean()
            optimizer.step(loss)
        noted.undo()
        launched |= set(run.launches)
    # Averages have a kernel in captured steps only, which do not know whether they are taken.
    others = PENALTIES | {"average_squares_kernel"}
    assert launched == {entry.kernel.__name__ for entry in entries()} - others
