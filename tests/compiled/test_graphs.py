"""Steps as device graphs, on a device that is made up: one that runs again what it captured."""

from functools import partial

import pytest
import torch
from compiled_cases import fixed, gan
from torch.optim import lr_scheduler

import compopt
from compopt import ACGD
from compopt.compiled import graph
from compopt.compiled.graph import WARM_UP

make = partial(ACGD, solver=fixed(), capturable=True)


class Rehearsal:
    """Stands for a device graph: the function itself, in memory that stays where it is."""

    captures = 0

    def __init__(self, function, device):
        Rehearsal.captures += 1
        self._function = function

    def replay(self):
        self._function()


@pytest.fixture(autouse=True)
def _made_up_device(monkeypatch):
    monkeypatch.setattr(Rehearsal, "captures", 0)
    monkeypatch.setattr(graph, "DeviceGraph", Rehearsal)
    monkeypatch.setattr(graph, "on_side_stream", lambda function, device: function())
    monkeypatch.setattr("compopt.compiled.checks.check_graph_device", lambda device: None)


class Run:
    def __init__(self, **options):
        torch.manual_seed(3)
        self.play = gan()
        self.optimizer = make(*self.play.params, lr=torch.tensor(0.01))
        options = {"mode": "graph", **options}
        self.step = compopt.compile(
            self.optimizer, self.play.loss_fn, *self.play.networks, **options
        )

    def __call__(self, times=1, batch=0):
        for index in range(times):
            loss = self.step(*self.play.batches[(batch + index) % 5])
        return loss


def test_graphs_step_as_eagerly():
    """With schedules, and each batch in its turn."""
    runs = Run(), Run(mode="eager")
    losses = []
    for run in runs:
        torch.manual_seed(5)
        scheduler = lr_scheduler.ExponentialLR(run.optimizer, 0.5)
        for index in range(WARM_UP + 3):
            losses.append(run(batch=index))
            scheduler.step()
    assert Rehearsal.captures == 1
    assert torch.equal(runs[0].play.flat(), runs[1].play.flat())
    assert losses[: WARM_UP + 3] == losses[WARM_UP + 3 :]
    reports = [str(run.optimizer.last_step) for run in runs]
    assert reports[0] == reports[1]


def test_a_replay_leaves_earlier_losses_alone():
    run = Run()
    run(WARM_UP)
    first = run()
    value = float(first)
    run(batch=1)
    assert float(first) == value


CHANGES = {
    "nothing": (lambda run: None, 1),
    "an eager step": (lambda run: run.optimizer.step(run.play.loss_fn(
        *run.play.networks, *run.play.batches[0])), 1),
    "a rate": (lambda run: run.optimizer.param_groups[0]["lr"].fill_(0.5), 1),
    "a loaded state": (lambda run: run.optimizer.load_state_dict(run.optimizer.state_dict()), 2),
    "another shape": (lambda run: setattr(
        run.play, "batches", [[part[:4] for part in batch] for batch in run.play.batches]), 2),
    "a mode": (lambda run: run.play.networks[1].eval(), 2),
    "a hyperparameter": (lambda run: run.optimizer.param_groups[0].update(weight_decay=0.5), 2),
    "memory": (lambda run: setattr(
        run.play.params[0][0], "data", run.play.params[0][0].detach().clone()), 2),
    "a frozen parameter": (lambda run: run.play.params[0][0].requires_grad_(False), 2),
}  # fmt: skip


@pytest.mark.parametrize(("change", "captures"), CHANGES.values(), ids=CHANGES)
def test_a_graph_is_captured_anew_where_it_would_be_wrong(change, captures):
    runs = Run(), Run(mode="eager")
    for run in runs:
        torch.manual_seed(5)
        run(WARM_UP + 2)
        change(run)
        run(WARM_UP + 2)
    assert Rehearsal.captures == captures
    assert torch.equal(runs[0].play.flat(), runs[1].play.flat())


def test_steps_that_could_not_be_captured_are_refused():
    play = gan()
    for options, match, remedy in (
        ({"capturable": False}, r"needs `capturable=True`", {"capturable": True}),
        ({"lr": 0.01}, r"Use `lr=torch\.tensor\(0\.01, device='cpu'\)`", {}),
    ):
        good = {"lr": torch.tensor(0.01), **options}
        with pytest.raises(ValueError, match=match):
            compile_of(play, make(*play.params, **good))
        compile_of(play, make(*play.params, **{**good, "lr": torch.tensor(0.01), **remedy}))


def compile_of(play, optimizer):
    return compopt.compile(optimizer, play.loss_fn, *play.networks, mode="graph")


def test_hooks_of_steps_are_refused():
    run = Run()
    handle = run.optimizer.register_step_post_hook(lambda *args: None)
    with pytest.raises(ValueError, match=r"hooks of `optimizer.step` once.*after each `step"):
        run()
    handle.remove()
    run()


def test_a_rate_that_becomes_a_number_is_refused():
    run = Run()
    run(WARM_UP + 1)
    run.optimizer.param_groups[0]["lr"] = 0.02
    with pytest.raises(ValueError, match=r"whatever a scheduler sets"):
        run()


def test_there_is_no_graph_on_the_processor(monkeypatch):
    monkeypatch.undo()
    play = gan()
    optimizer = make(*play.params, lr=torch.tensor(0.01))
    with pytest.raises(ValueError, match=r"needs parameters on a CUDA device.*`mode=\"auto\"`"):
        compile_of(play, optimizer)
    assert compopt.compile(optimizer, play.loss_fn, *play.networks).mode == "program"
