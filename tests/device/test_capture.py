"""On a CUDA device, started with TRITON_INTERPRET=0: ``TRITON_INTERPRET=0 pytest -m gpu``."""

import pytest
import torch
from kernel_checks import SIZES, assert_accurate
from torch import nn

from compopt import ACGD, ConjugateGradient
from compopt.kernels import gather, partial_dot, use_backend

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("n", SIZES)
def test_kernels_run(n):
    a, b, out = (torch.randn(n, device="cuda") for _ in range(3))
    with use_backend("triton"):
        total = partial_dot(a, b).double().sum()
        gather([a], [n], out, b, b)
    allowed = 1e-6 * float(a.norm() * b.norm())
    assert abs(float(total) - float(a.double() @ b.double())) <= allowed
    assert_accurate(out, b.double() + b.double() * a.double())


def networks():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 16)).cuda()
    critic = nn.Sequential(nn.Linear(16, 64), nn.Softplus(), nn.Linear(64, 1)).cuda()
    return generator, critic


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_whole_step_replays_as_a_graph(backend):
    runs = []
    for captured in (False, True):
        generator, critic = networks()
        optimizer = ACGD(
            generator.parameters(),
            critic.parameters(),
            lr=1e-3,
            solver=ConjugateGradient(rtol=0.0, max_iter=2),
            capturable=True,
            backend=backend,
        )
        z, real = torch.randn(32, 8, device="cuda"), torch.randn(32, 16, device="cuda")

        def step(generator=generator, critic=critic, optimizer=optimizer, z=z, real=real):
            optimizer.step(critic(real).mean() - critic(generator(z)).mean())

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            for _ in range(5):
                graph.replay()
        else:
            for _ in range(5):
                step()
        runs.append([param.detach() for param in (*generator.parameters(), *critic.parameters())])
    for plain, replayed in zip(*runs, strict=True):
        assert_accurate(replayed, plain, rtol=1e-5)
