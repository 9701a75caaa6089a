"""What cannot be one program is refused, and what is said to do instead works."""

from functools import partial

import numpy as np
import pytest
import torch
from compiled_cases import fixed, gan_loss, linear_gan
from torch import distributed as dist
from torch import nn

import compopt
from compopt import ACGD, CGD, GMRES, ConjugateGradient
from compopt.optim.rivals import ExtraGradient

CONSTANT = torch.ones((), dtype=torch.float64)


def compiled(optimizer, play, loss_fn=None, **options):
    options = {"backend": "eager", **options}
    return compopt.compile(optimizer, loss_fn or play.loss_fn, *play.networks, **options)


def take(optimizer, play, loss_fn=None, **options):
    before = play.flat()
    compiled(optimizer, play, loss_fn, **options)(*play.batches[0])
    assert not torch.equal(play.flat(), before)


@pytest.mark.parametrize("solver", [None, ConjugateGradient(), GMRES()], ids=repr)
def test_a_tolerance(solver):
    play = linear_gan()
    optimizer = ACGD(*play.params, solver=solver)
    with pytest.raises(ValueError, match=r"fixed iteration count.*ConjugateGradient\(rtol=0"):
        compiled(optimizer, play)
    take(optimizer, play, mode="eager")
    take(ACGD(*play.params, solver=ConjugateGradient(rtol=0.0, max_iter=1)), play)


def test_a_tolerance_that_is_set_later():
    play = linear_gan()
    optimizer = ACGD(*play.params, solver=fixed())
    step = compiled(optimizer, play)
    step(*play.batches[0])
    optimizer.solver = ConjugateGradient()
    with pytest.raises(ValueError, match="fixed iteration count"):
        step(*play.batches[0])


def test_processes_that_share_steps(tmp_path):
    play = linear_gan()
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        optimizer = ACGD(*play.params, solver=fixed(), process_group=dist.group.WORLD)
        with pytest.raises(ValueError, match="Leave out `process_group`, or compile with `mode="):
            compiled(optimizer, play)
        take(optimizer, play, mode="eager")
    finally:
        dist.destroy_process_group()


def test_a_mirror_that_reads_values():
    matrix = nn.ParameterList([torch.eye(2, dtype=torch.float64)])
    play = linear_gan()
    play.networks[0] = matrix

    def loss_fn(matrix, critic, real, noise):
        return critic(real @ matrix[0]).tanh().mean()

    solver = fixed()
    optimizer = CGD(*play.params, solver=solver, mirror=("positive-definite", "euclidean"))
    with pytest.raises(ValueError, match=r'mirror="positive-definite".*mode="eager"'):
        compiled(optimizer, play)
    take(optimizer, play, loss_fn, mode="eager")


def test_parameters_that_no_network_has():
    play = linear_gan()
    own = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = CGD([own], play.params[1], solver=fixed())
    with pytest.raises(ValueError, match=r"in none of the networks.*nn\.ParameterList"):
        compiled(optimizer, play)
    play.networks[0] = nn.ParameterList([own])

    def loss_fn(own, critic, real, noise):
        return critic(real + own[0]).tanh().mean()

    take(CGD(*play.params, solver=fixed()), play, loss_fn)


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_on_parameters(register):
    play = linear_gan()
    optimizer = CGD(*play.params, solver=fixed())
    step = compiled(optimizer, play)
    step(*play.batches[0])
    handle = getattr(play.params[0][0], register)(lambda _: None)
    with pytest.raises(ValueError, match="must have no hooks"):
        step(*play.batches[0])
    handle.remove()
    step(*play.batches[0])


def test_tensors_that_are_no_inputs():
    play = linear_gan()
    optimizer = CGD(*play.params, solver=fixed())
    with pytest.raises(RuntimeError, match=r"Pass tensors that change.* as inputs.*register"):
        take(optimizer, play, lambda *args: CONSTANT * gan_loss(*args))
    play.batches = [[*play.batches[0], CONSTANT]]
    take(optimizer, play, lambda *args: args[-1] * gan_loss(*args[:-1]))
    play.networks[1].register_buffer("constant", CONSTANT)
    play.batches = [play.batches[0][:2]]
    take(optimizer, play, lambda *args: args[1].constant * gan_loss(*args))


def branching(*args):
    loss = gan_loss(*args)
    return loss if loss > 0 else 2 * loss


@pytest.mark.parametrize("loss_fn", [branching, lambda *a: gan_loss(*a) * float(a[2].sum())])
def test_values_that_are_read(loss_fn):
    play = linear_gan()
    optimizer = CGD(*play.params, solver=fixed())
    with pytest.raises(RuntimeError, match=r"reads a value.*`torch.where`.*mode=\"eager\""):
        take(optimizer, play, loss_fn)
    take(optimizer, play, loss_fn, mode="eager")
    take(optimizer, play, lambda *args: torch.where((x := gan_loss(*args)) > 0, x, 2 * x))


def test_generators_of_their_own():
    play = linear_gan()
    optimizer = CGD(*play.params, solver=fixed())
    generator = torch.Generator()

    def loss_fn(*args, **options):
        noise = torch.randn(6, 3, dtype=torch.float64, **options)
        return gan_loss(*args[:3], noise)

    with pytest.raises(RuntimeError, match=r"draws from a `torch\.Generator`.*default generator"):
        take(optimizer, play, partial(loss_fn, generator=generator))
    take(optimizer, play, loss_fn)


def test_inputs_of_other_kinds():
    play = linear_gan()
    step = compiled(CGD(*play.params, solver=fixed()), play)
    arrays = [batch.numpy() for batch in play.batches[0]]
    with pytest.raises(TypeError, match=r"got ndarray.*torch\.as_tensor"):
        step(*arrays)
    step(*map(torch.as_tensor, arrays))
    assert isinstance(arrays[0], np.ndarray)


def test_more_programs_than_pay(monkeypatch):
    monkeypatch.setattr("compopt.compiled.program_step.MOST_PROGRAMS", 2)
    play = linear_gan()
    step = compiled(CGD(*play.params, solver=fixed()), play, lambda *a: a[-1] * gan_loss(*a[:-1]))
    for weight in (1, 2):
        step(*play.batches[0], weight)
    with pytest.raises(RuntimeError, match=r"compiled 2 times.*other inputs.*as a tensor"):
        step(*play.batches[0], 3)
    step(*play.batches[0], 2)


def test_a_buffer_that_grows():
    play = linear_gan()

    def loss_fn(generator, critic, real, noise):
        critic.seen = torch.cat([critic.seen, real.detach()])
        return gan_loss(generator, critic, real, noise)

    play.networks[1].register_buffer("seen", torch.zeros(0, 2, dtype=torch.float64))
    optimizer = CGD(*play.params, solver=fixed())
    with pytest.raises(ValueError, match=r"`networks\.1\.seen` from.*mode=\"eager\""):
        take(optimizer, play, loss_fn)
    take(optimizer, play, loss_fn, mode="eager")
    assert len(play.networks[1].seen) == 6


def test_arguments_of_the_wrong_kind():
    play = linear_gan()
    optimizer = CGD(*play.params, solver=fixed())
    with pytest.raises(TypeError, match="must be a CGD or an ACGD, got ExtraGradient"):
        compiled(ExtraGradient(*play.params, lr=0.1), play)
    with pytest.raises(TypeError, match=r"`loss_fn` must be a function.*got Tensor"):
        compopt.compile(optimizer, CONSTANT, *play.networks)
    with pytest.raises(TypeError, match=r"`networks` must be the modules.*got none"):
        compopt.compile(optimizer, gan_loss)
    with pytest.raises(TypeError, match=r"got \['list'\].*nn\.ParameterList"):
        compopt.compile(optimizer, gan_loss, play.params[0])
    with pytest.raises(ValueError, match="`mode`"):
        compiled(optimizer, play, mode="fast")


def test_a_pair_for_conjugate_gradients():
    play = linear_gan()
    with pytest.raises(TypeError, match=r"GMRES\(\)"):
        take(CGD(*play.params, solver=fixed()), play, lambda *a: (gan_loss(*a), -gan_loss(*a)))
