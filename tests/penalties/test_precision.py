"""Float32 inside, whatever autocast and half-precision inputs do around a penalty."""

import pytest
import torch
from covering import one_each
from dense import assert_close
from penalty_registry import SETTINGS, GanBatch
from torch import nn

from compopt.penalties import R1, WganGP, consistency_penalty, cosines, gradient_penalty

HALVES = [torch.bfloat16, torch.float16]
each_half = pytest.mark.parametrize("dtype", HALVES, ids=str)

# AdvAs is a function of a loss that was computed under autocast, in half precision.
OF_A_LOSS = {"advas", "advas-fixed", "advas-signs"}


@pytest.mark.parametrize(
    ("setting", "dtype"), one_each([s for s in SETTINGS if s.name not in OF_A_LOSS], HALVES)
)
def test_autocast_changes_nothing_inside(setting, dtype):
    batch = GanBatch(torch.float32)
    fake = batch.fake()
    values, grads = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            term = setting.build().on(**{**batch.inputs(), "fake": fake})
            assert term.dtype == torch.float32
        values.append(term.detach())
        params = batch.max_params
        found = torch.autograd.grad(term, params, retain_graph=True, allow_unused=True)
        grads.append([grad for grad in found if grad is not None])
    assert_close(values[1], values[0], 1e-6)
    assert len(grads[0]) == len(grads[1]) > 0
    for one, other in zip(*grads, strict=True):
        assert one.dtype == torch.float32
        assert_close(other, one, 1e-5)


@pytest.mark.parametrize(("setting", "dtype"), one_each(SETTINGS, HALVES))
def test_autocast_networks_and_half_samples(setting, dtype):
    """The usual loop: samples and fakes come out of autocast in half precision."""
    batch = GanBatch(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        inputs = batch.inputs()
        inputs["real"] = inputs["points"] = batch.real.to(dtype)
        inputs["fake"] = inputs["fake"].to(dtype)
        term = setting.build().on(**inputs)
    assert term.dtype == torch.float32
    assert torch.isfinite(term)
    exact = GanBatch(torch.float32)
    expected = exact.term(setting.build()).detach()
    assert_close(term.detach(), expected, 0.15)
    params = batch.min_params if setting.name in OF_A_LOSS else batch.max_params
    for grad in torch.autograd.grad(term, params, allow_unused=True):
        assert grad is None or torch.isfinite(grad).all()


def test_squares_that_half_precision_cannot_hold():
    """Gradients of 1e-4 and of 300 square to 0 and to infinity in float16."""
    for size in (1e-4, 300.0):
        critic = nn.Linear(4, 1, bias=False).half()
        nn.init.constant_(critic.weight, size)
        x = torch.ones(3, 4, dtype=torch.float16)
        stored = float(critic.weight[0, 0].detach())
        value = R1(2.0)(critic, x)
        assert value.dtype == torch.float32
        assert float(value.detach()) == pytest.approx(4 * stored**2, rel=1e-5)
        norm = gradient_penalty(critic, x, target=2.0).detach()
        assert float(norm) == pytest.approx((2 * stored - 2) ** 2, rel=1e-3)


@each_half
def test_half_precision_networks_without_autocast(dtype):
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    real, fake = torch.randn(2, 3, 4).to(dtype)
    term = WganGP()(critic, real, fake, generator=torch.Generator().manual_seed(0))
    term.backward()
    assert term.dtype == torch.float32
    # The last bias shifts scores and has no part in their gradients.
    grads = [param.grad for param in critic.parameters()][:-1]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert consistency_penalty(critic, real, fake).dtype == torch.float32


def test_cosines_under_autocast_are_exact():
    rows = torch.tensor([[1.0, 1e-3], [1.0, 0.0]])
    expected = 1 / (1 + 1e-6) ** 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = float(cosines(rows)[0, 1])
    assert value == pytest.approx(expected, rel=1e-7)
    assert float(cosines(rows.bfloat16())[0, 1]) == pytest.approx(expected, rel=1e-6)
