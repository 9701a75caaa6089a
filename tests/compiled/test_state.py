"""The state of a compiled step is the optimizer's."""

import copy
from functools import partial

import pytest
import torch
from compiled_cases import fixed, gan, of_case
from torch.optim import lr_scheduler

import compopt
from compopt import ACGD

TRACED = {"backend": "eager"}
make = partial(ACGD, solver=fixed())


class Run:
    """A game, its optimizer, and its compiled step."""

    def __init__(self, play=None, *, lr=0.01, **options):
        self.play = of_case("quadratic") if play is None else play
        self.optimizer = make(*self.play.params, lr=lr)
        self.step = compopt.compile(
            self.optimizer, self.play.loss_fn, *self.play.networks, **(options or TRACED)
        )

    def __call__(self):
        return self.step(*self.play.batches[0])


EAGER = {"mode": "eager"}


def states(optimizer):
    """Return all numbers of a state dict."""
    entries = optimizer.state_dict()["state"]
    return {(i, key): value for i, entry in entries.items() for key, value in entry.items()}


def same_states(one, other):
    one, other = states(one), states(other)
    assert one.keys() == other.keys()
    return all(torch.allclose(one[key], other[key], rtol=1e-10, atol=0) for key in one)


def test_state_dicts_are_those_of_eager_steps():
    runs = Run(), Run(**EAGER)
    for run in runs:
        for _ in range(3):
            run()
    assert same_states(*(run.optimizer for run in runs))
    assert states(runs[0].optimizer)[0, "step"] == 3


def test_eager_steps_and_steps_alone_may_come_between():
    runs = Run(), Run(**EAGER)
    for run in runs:
        for index in range(4):
            run()
            loss = run.play.loss_fn(*run.play.networks, *run.play.batches[0])
            run.optimizer.step(loss, player="max" if index == 1 else None)
        run()
    assert torch.allclose(runs[0].play.flat(), runs[1].play.flat(), rtol=1e-10)
    assert same_states(*(run.optimizer for run in runs))


def test_a_loaded_state_is_gone_on_from():
    run = Run()
    run()
    saved = copy.deepcopy(run.optimizer.state_dict())
    weights = [copy.deepcopy(network.state_dict()) for network in run.play.networks]
    run()
    first = run.play.flat()
    for network, weight in zip(run.play.networks, weights, strict=True):
        network.load_state_dict(weight)
    run.optimizer.load_state_dict(saved)
    run()
    assert torch.equal(run.play.flat(), first)
    assert len(run.step._programs) == 1


@pytest.mark.parametrize("lr", [0.01, torch.tensor(0.01), (0.01, 0.02)], ids=str)
def test_schedules_reach_the_one_program(lr):
    runs = Run(lr=lr), Run(lr=lr, **EAGER)
    for run in runs:
        scheduler = lr_scheduler.ExponentialLR(run.optimizer, 0.5)
        for _ in range(3):
            run()
            scheduler.step()
    assert torch.allclose(runs[0].play.flat(), runs[1].play.flat(), rtol=1e-10)
    assert len(runs[0].step._programs) == 1


def test_hooks_of_steps_run():
    run, seen = Run(), []
    run.optimizer.register_step_pre_hook(lambda *args: seen.append("before"))
    run.optimizer.register_step_post_hook(lambda opt, *args: seen.append(opt.last_step.taken))
    run()
    assert seen == ["before", True]


def test_reports_are_those_of_eager_steps():
    runs = Run(), Run(**EAGER)
    for run in runs:
        run()
        run()
    reports = [run.optimizer.last_step for run in runs]
    assert str(reports[0]) == str(reports[1])
    assert reports[0].delta_norms == pytest.approx(reports[1].delta_norms)
    assert reports[0].status is reports[1].status


CHANGES = {
    "inputs": lambda run: setattr(run.play, "batches", [[b[:4] for b in run.play.batches[0]]]),
    "networks": lambda run: run.play.networks[1].eval(),
    "hyperparameters": lambda run: run.optimizer.param_groups[0].update(weight_decay=0.5),
    "options": lambda run: setattr(run.optimizer, "solver", fixed(3)),
    "frozen": lambda run: run.play.networks[0][0].weight.requires_grad_(False),
    "counts": lambda run: run.optimizer.state[run.play.params[0][0]]["step"].add_(10),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_between_steps_is_followed(change):
    """Dropout draws alike, since the graph is run as it was traced."""
    runs = Run(gan()), Run(gan(), **EAGER)
    for run in runs:
        torch.manual_seed(1)
        run()
        change(run)
        run()
    assert torch.allclose(runs[0].play.flat(), runs[1].play.flat(), rtol=1e-10)


def test_another_program_is_made_only_where_something_differs():
    run = Run(gan())
    for _ in range(3):
        run()
        run.play.batches = run.play.batches[1:]
    assert len(run.step._programs) == 1
    run.play.networks[1].eval()
    run()
    assert len(run.step._programs) == 2
    run.play.networks[1].train()
    run()
    assert len(run.step._programs) == 2


def test_parameters_that_are_added_are_moved():
    run = Run(gan())
    layer = run.play.networks[0][0]
    group = run.optimizer.param_groups[0]
    group["params"] = [param for param in group["params"] if param is not layer.bias]
    run()
    before = layer.bias.detach().clone()
    run()
    assert torch.equal(layer.bias, before)
    run.optimizer.add_param_group({"params": layer.bias, "player": "min"})
    run()
    assert not torch.equal(layer.bias, before)


def test_a_prepared_step_is_dropped():
    run = Run()
    run.optimizer.backward(run.play.loss_fn(*run.play.networks, *run.play.batches[0]))
    run()
    run.optimizer.zero_grad()
    after = run.play.flat()
    assert run.optimizer.step() is None
    assert torch.equal(run.play.flat(), after)
