"""Fused layers with the Triton backend, interpreted, against torch's own."""

import copy

import pytest
import torch
from torch import nn

from compopt import CGD
from compopt.kernels import use_backend
from compopt.nn import fuse

strict = pytest.importorskip("strict_interpreter").strict


def networks():
    generator = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.LayerNorm(6), nn.SiLU()
    )
    critic = nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.BatchNorm1d(2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(6, 1)
    )
    return generator.double(), critic.double()


def test_steps_follow_torchs_layers():
    plain = networks()
    fused = copy.deepcopy(plain)
    for network in fused:
        fuse(network)
    optimizers = [
        CGD(g.parameters(), d.parameters(), lr=1e-2, backend=backend)
        for (g, d), backend in ((plain, "torch"), (fused, "triton"))
    ]
    for _ in range(3):
        noise, real = (torch.randn(5, n, dtype=torch.float64) for n in (3, 6))
        for (generator, critic), optimizer in zip((plain, fused), optimizers, strict=True):
            with use_backend(optimizer.backend), strict() as run:
                loss = critic(real).mean() - critic(generator(noise)).tanh().mean()
                weights = generator[0].weight
                (grad,) = torch.autograd.grad(loss, weights, create_graph=True)
                torch.autograd.grad(grad.square().sum(), critic.parameters(), retain_graph=True)
            assert ("derivative_kernel" in run.launches) == (generator is fused[0])
            # The optimizer's own kernels reach tensors that are not their arguments.
            optimizer.step(loss)
    assert {"bias_act_kernel", "layer_norm_kernel"} <= set(run.launches)
    for one, other in zip(plain, fused, strict=True):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(value, one.state_dict()[name], rtol=1e-9, atol=1e-11)
