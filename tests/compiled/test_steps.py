"""Compiled steps are the eager ones."""

from functools import partial

import pytest
import torch
from cases import CASES
from compiled_cases import fixed, gan, gan_loss, largest_error, of_case, steps
from torch import nn
from torch._inductor import config as inductor_config

from compopt import ACGD, CGD, GMRES, Game, MicroBatches

TRACED = "eager"
"""Runs the traced graph as it is, which takes a second where compiling takes minutes."""

# Trying out what the C++ compiler can do, and compiling headers once and for all, takes longer than
# compiling one small program. Torch before 2.8 does not compile headers.
ONE_PROGRAM = {
    name: value
    for name, value in (("cpp.vec_isa_ok", True), ("cpp_cache_precompile_headers", False))
    if name.startswith("cpp.") or hasattr(inductor_config, name)
}


@pytest.mark.parametrize("name", CASES)
def test_every_case_steps_as_eagerly(name):
    make = partial(ACGD, lr=0.01, solver=fixed(2))
    _, seen = steps(of_case(name), make, backend=TRACED)
    _, truth = steps(of_case(name), make, mode="eager")
    assert largest_error(seen, truth) <= 1e-10


def in_groups(xs, ys, **options):
    groups = [{"params": xs[:2], "lr": 0.02, "weight_decay": 0.1}, {"params": xs[2:], "beta": 0.9}]
    return ACGD(groups, ys, lr=(0.01, 0.03), solver=fixed(), **options)


FORMS = {
    "one": partial(CGD, lr=0.05, solver=fixed(1)),
    "three, for the min player": partial(CGD, lr=0.05, solver=fixed(3), solve_for="min"),
    "adaptive, one": partial(ACGD, lr=0.01, solver=fixed(1), solve_for="max"),
    "adaptive, three": partial(ACGD, lr=0.01, solver=fixed(3), solve_for="min"),
    "alternate": partial(ACGD, lr=0.01, solver=fixed(2), solve_for="alternate"),
    "decay": partial(CGD, lr=0.05, solver=fixed(2), weight_decay=0.1),
    "clipped": partial(ACGD, lr=0.01, solver=fixed(2), weight_decay=0.1, max_grad_norm=0.05),
    "groups": in_groups,
    "strength": partial(ACGD, lr=0.01, solver=fixed(2), interaction=0.03),
    "apart": partial(ACGD, lr=0.01, interaction=0.0),
    "warm": partial(ACGD, lr=0.01, solver=fixed(2), warm_start=True),
    "box": partial(CGD, lr=0.01, solver=fixed(2), mirror=("box", -20.0, 20.0)),
    "adaptive box": partial(ACGD, lr=0.01, solver=fixed(2), mirror=("box", -20.0, 20.0)),
    "capturable": partial(ACGD, lr=torch.tensor(0.01), solver=fixed(2), capturable=True),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_every_form_steps_as_eagerly(make):
    # Parts of a player need several parameters; else a small game is traced sooner.
    name = "mlp-gan" if make is in_groups else "quadratic"
    _, seen = steps(of_case(name), make, 4, backend=TRACED)
    _, truth = steps(of_case(name), make, 4, mode="eager")
    assert largest_error(seen, truth) <= 1e-8


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [(torch.float64, "aot_eager"), (torch.float32, TRACED)],
    ids=["double", "single"],
)
def test_statistics_come_out_and_dropout_draws_as_eagerly(dtype, backend):
    make = partial(ACGD, lr=0.01, solver=fixed(1))
    _, seen = steps(gan(dtype), make, backend=backend)
    _, truth = steps(gan(dtype), make, mode="eager")
    assert largest_error(seen, truth) <= (1e-10 if dtype == torch.float64 else 1e-5)
    _, other = steps(gan(dtype, dropout=0.0), make, mode="eager")
    assert largest_error(seen, other) > 1e-3


def penalized(generator, critic, real, noise):
    real = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    loss = gan_loss(generator, critic, real, noise)
    return Game(loss, max_penalty=slope.square().sum(), min_penalty=loss.square())


def paired(generator, critic, real, noise):
    return gan_loss(generator, critic, real, noise), critic(generator(noise)).square().mean()


def in_parts(generator, critic, real, noise):
    halves = zip(real.chunk(2), noise.chunk(2), strict=True)
    return MicroBatches(gan_loss(generator, critic, *half) for half in halves)


def curved(generator, critic, real, noise):
    loss = gan_loss(generator, critic, real, noise)
    return Game(loss, curvature_loss=gan_loss(generator, critic, real[:3], noise[:3]))


GAMES = {
    "penalties": (penalized, fixed(2)),
    "pair": (paired, GMRES(rtol=0.0, max_iter=2)),
    "micro-batches": (in_parts, fixed(1)),
    "curvature": (curved, fixed(1)),
}


@pytest.mark.parametrize(("loss_fn", "solver"), GAMES.values(), ids=GAMES)
def test_every_kind_of_game_steps_as_eagerly(loss_fn, solver):
    trajectories = []
    for options in ({"backend": TRACED}, {"mode": "eager"}):
        play = gan()
        play.loss_fn = loss_fn
        trajectories.append(steps(play, partial(ACGD, lr=0.01, solver=solver), **options)[1])
    assert largest_error(*trajectories) <= 1e-8


def test_large_vectors_are_traced_as_one_block():
    """In blocks, as the eager step works on them, they would be a kernel for each."""

    def compiler(graph, tensors):
        graphs.append(graph)
        return graph

    graphs, counts = [], []
    for size in (10, 2**19):
        play = gan()
        play.networks = [nn.ParameterList([torch.ones(size)]), nn.ParameterList([torch.ones(size)])]
        play.loss_fn, play.batches = lambda x, y: (x[0] * y[0]).mean(), [[]]
        steps(play, partial(ACGD, lr=0.01, solver=fixed(1)), 1, backend=compiler)
        counts.append(sum("sqrt" in str(node.target) for node in graphs[-1].graph.nodes))
    assert counts[0] == counts[1] > 0


def test_a_step_that_is_compiled_for_the_processor_is_the_eager_one():
    make = partial(ACGD, lr=0.01, solver=fixed(1))
    with inductor_config.patch(ONE_PROGRAM):
        _, seen = steps(of_case("bilinear"), make, 5)
    _, truth = steps(of_case("bilinear"), make, 5, mode="eager")
    assert largest_error(seen, truth) <= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_a_compiled_network_steps_as_eagerly(dtype, bound):
    make = partial(ACGD, lr=0.01, solver=fixed(2), weight_decay=0.1)
    _, seen = steps(gan(dtype, dropout=0.0), make, 5)
    _, truth = steps(gan(dtype, dropout=0.0), make, 5, mode="eager")
    assert largest_error(seen, truth) <= bound


@pytest.mark.slow
def test_compiled_dropout_draws_anew_and_at_its_rate():
    def loss_fn(generator, critic, real, noise):
        kept = nn.functional.dropout(torch.ones(1000, dtype=real.dtype), 0.25)
        return 1e-9 * gan_loss(generator, critic, real, noise) + (kept == 0).double().mean()

    play = gan(dropout=0.0)
    play.loss_fn = loss_fn
    _, seen = steps(play, partial(CGD, lr=0.01, solver=fixed(1)), 40)
    rates = torch.stack([game[-1] for game in seen])
    assert len(rates.unique()) > 20
    # The standard error is 0.002.
    assert float((rates.mean() - 0.25).abs()) < 0.01
