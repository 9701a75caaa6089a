"""After an error or a step that is not good, everything is as before."""

import warnings
from functools import partial

import pytest
import torch
from compiled_cases import fixed, gan
from torch import nn

import compopt
from compopt import ACGD, StepError, StepWarning

make = partial(ACGD, lr=0.01, solver=fixed())


def start(loss_fn=None, *, dropout=0.0, backend="eager", mode="auto", **options):
    play = gan(dropout=dropout)
    optimizer = make(*play.params, **options)
    step = compopt.compile(
        optimizer, loss_fn or play.loss_fn, *play.networks, backend=backend, mode=mode
    )
    return play, optimizer, step


def everything(play, optimizer):
    state = [v.clone() for entry in optimizer.state.values() for v in entry.values()]
    return [*(p.detach().clone() for params in play.params for p in params), *state]


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("on_failure", ["fallback", "skip"])
def test_a_step_that_is_not_finite_is_not_taken(on_failure):
    play, optimizer, step = start(on_failure=on_failure)
    step(*play.batches[0])
    before, real = everything(play, optimizer), play.batches[1][0]
    with pytest.warns(StepWarning, match=r"not taken.* gradient of the max player"):
        loss = step(torch.full_like(real, torch.nan), play.batches[1][1])
    assert bool(loss.isnan())
    assert not optimizer.last_step.taken
    assert same(everything(play, optimizer), before)
    step(*play.batches[1])
    assert optimizer.last_step.taken
    assert not same(everything(play, optimizer), before)


def test_a_failure_raises_where_it_is_asked_to():
    play, optimizer, step = start(on_failure="raise")
    step(*play.batches[0])
    before = everything(play, optimizer)
    with pytest.raises(StepError, match="not taken"):
        step(torch.full_like(play.batches[0][0], torch.inf), play.batches[0][1])
    assert same(everything(play, optimizer), before)


def overflowing(generator, critic, real, noise):
    """Return a loss whose products overflow where its gradients do not."""
    return critic(real).mean() - 1e200 * (1e-5 * critic(generator(noise))).mean()


@pytest.mark.parametrize("on_failure", ["fallback", "skip"])
def test_a_failed_solve_does_as_an_eager_one(on_failure):
    flat = []
    for mode in ("auto", "eager"):
        play, optimizer, step = start(overflowing, mode=mode, on_failure=on_failure)
        optimizer.solver = fixed(2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StepWarning)
            step(*play.batches[0])
        assert not optimizer.last_step.taken
        flat.append(play.flat())
    assert torch.equal(*flat)


def test_statistics_follow_a_loss_whose_step_is_not_taken():
    flat = []
    for mode in ("auto", "eager"):
        play, _, step = start(mode=mode, on_failure="skip")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StepWarning)
            step(torch.full_like(play.batches[0][0], torch.nan), play.batches[0][1])
        flat.append(play.flat())
    assert torch.equal(*flat)
    assert not torch.equal(flat[0], gan().flat())


def broken_later(graph, tensors):
    """Compile to something that fails at its second call."""
    calls = []

    def run(*args):
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError
        return graph(*args)

    return run


def test_an_error_in_a_program_changes_nothing():
    play, optimizer, step = start(backend=broken_later)
    step(*play.batches[0])
    before, buffers = everything(play, optimizer), play.flat()
    with pytest.raises(MemoryError):
        step(*play.batches[1])
    assert same(everything(play, optimizer), before)
    assert torch.equal(play.flat(), buffers)
    step(*play.batches[1])
    assert not same(everything(play, optimizer), before)


def test_an_error_in_the_loss_changes_nothing():
    def loss_fn(generator, critic, real, noise):
        generator(noise)
        raise KeyError("label")

    play, optimizer, step = start(loss_fn)
    before, buffers = everything(play, optimizer), play.flat()
    with pytest.raises(KeyError, match="label"):
        step(*play.batches[0])
    assert same(everything(play, optimizer), before)
    assert torch.equal(play.flat(), buffers)


class Averaged(nn.Module):
    """Assigns its buffer anew, and has one that stays."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1).double()
        self.register_buffer("mean", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("weight", torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.linear((x - self.mean) * self.weight)


def test_a_buffer_that_is_assigned_anew_comes_out():
    flat = []
    for mode in ("auto", "eager"):
        torch.manual_seed(2)
        play = gan()
        play.networks[1] = Averaged()
        step = compopt.compile(
            make(*play.params), play.loss_fn, *play.networks, backend="eager", mode=mode
        )
        for batch in play.batches[:3]:
            step(*batch)
        flat.append(play.flat())
    assert torch.allclose(*flat, rtol=1e-10)
    assert bool(play.networks[1].mean.any())
