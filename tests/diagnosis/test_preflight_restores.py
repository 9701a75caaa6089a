"""Parameters, buffers, gradients, hooks and random numbers are as before a preflight."""

import contextlib
import gc

import pytest
import torch
from preflight_games import WIDTH, Attention, Layer, Once, healthy, play
from saved_tensors import counting_saved_tensors
from torch import Tensor, nn
from torch.nn import functional

from compopt.diagnosis import PreflightError, preflight


class Replaces(nn.Module):
    """A module that puts a new tensor in place of its buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count = self.count + 1
        return x


class Noisy(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.1) + 1e-3 * torch.randn_like(x)


@pytest.mark.parametrize("fails", [False, True], ids=["passes", "fails"])
def test_everything_is_as_before(fails):
    modern = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))
    classic = torch.nn.utils.spectral_norm(nn.Linear(WIDTH, WIDTH))
    layers = [modern, classic, nn.BatchNorm1d(WIDTH), Replaces(), Noisy()]
    inner = nn.Sequential(*layers, Layer(Once.apply if fails else torch.sin))
    loss_fn, min_player, max_player = play(inner)
    for param in max_player.parameters():
        param.grad = torch.full_like(param, 7.0)
    norm = inner[2]
    version = inner[2].running_mean._version

    def snapshot() -> list[Tensor]:
        tensors = [*max_player.state_dict().values(), *min_player.state_dict().values()]
        return [*(tensor.clone() for tensor in tensors), torch.get_rng_state()]

    before, buffers = snapshot(), list(max_player.buffers())
    if fails:
        with pytest.raises(PreflightError):
            preflight(loss_fn, min_player, max_player)
    else:
        preflight(loss_fn, min_player, max_player)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(), strict=True))
    assert all(a is b for a, b in zip(buffers, max_player.buffers(), strict=True))
    assert norm.running_mean._version > version
    assert all(bool((param.grad == 7).all()) for param in max_player.parameters())
    assert all(param.grad is None for param in min_player.parameters())
    for module in [*min_player.modules(), *max_player.modules()]:
        assert not module._forward_hooks
        assert len(module._forward_pre_hooks) == (module is classic)
    loss_fn()
    assert not torch.equal(before[-1], torch.get_rng_state())
    assert norm.num_batches_tracked == 1


def test_buffers_that_a_forward_pass_only_reads_are_not_written():
    norm = nn.BatchNorm1d(WIDTH).eval()
    version = norm.running_mean._version
    healthy(norm)
    assert norm.running_mean._version == version


@pytest.mark.parametrize("module", [nn.Tanh, Attention], ids=["passes", "fails"])
def test_graph_is_freed(module):
    loss_fn, min_player, max_player = play(module())
    gc.disable()
    try:
        with contextlib.suppress(PreflightError), counting_saved_tensors() as saved:
            preflight(loss_fn, min_player, max_player)
        # Torch itself holds what a failed backward pass has queued until the next one.
        torch.ones(1, requires_grad=True).exp().backward()
        assert saved.total > 20
        assert saved.alive() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(("measure", "count"), [(False, 1), (True, 11)])
def test_how_often_the_loss_function_runs(measure, count):
    loss_fn, min_player, max_player = play(nn.Tanh())
    calls = []
    preflight(lambda: calls.append(1) or loss_fn(), min_player, max_player, measure=measure)
    assert len(calls) == count
