"""Optuna hands out the cells; what it has lost sight of is run again."""

import math
import signal
import time

import optuna
import pytest
from forked import run_forked
from optuna.trial import TrialState
from rich.console import Console

from benchmarks.cifar10 import queue
from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import EVALUATIONS, RunFolder
from benchmarks.cifar10.monitor import work
from benchmarks.cifar10.protocol import load_protocol
from benchmarks.cifar10.queue import Queue
from benchmarks.cifar10.search import Search, Space
from benchmarks.cifar10.stored import endpoint
from benchmarks.cifar10.sweep import Runner, Sweep

PROTOCOL = """
description: tuned
run:
  network: {kind: dcgan, width: 0.03125, latent_size: 8}
  steps: 2
  batch_size: 8
  evaluation: {images: 8, final_images: 16, norm_images: 16}
optimizers: {acgd: {kind: acgd, lr: 1.0e-3}}
terms: {none: {kind: none}, wgan-gp: {kind: wgan-gp}}
searches:
  - optimizers: [acgd]
    losses: [wgan]
    terms: [none, wgan-gp]
    trials: 3
    space:
      lr: {low: 1.0e-4, high: 1.0e-2, log: true}
      solver: {options: {one: {rtol: 0.0, max_iter: 1}, loose: {rtol: 0.3}}}
"""


@pytest.fixture
def sweep(tmp_path):
    file = tmp_path / "tuned.yaml"
    file.write_text(PROTOCOL)
    return Sweep.create(tmp_path / "sweep", load_protocol(str(file)))


def test_trials_are_cells_with_what_was_drawn(sweep):
    cells = list(sweep.cells.values())
    assert [cell.name for cell in cells[:3]] == [
        "acgd_wgan_none_trial0",
        "acgd_wgan_wgan-gp_trial0",
        "acgd_wgan_none_trial1",
    ]
    for number in range(3):
        one, other = cells[2 * number : 2 * number + 2]
        # Methods are tried with the same values, from the same seed.
        assert one.choices == other.choices
        assert (one.optimizer, one.seed) == (other.optimizer, 100)
        assert one.optimizer.lr == one.choices["lr"]
        is_one = one.choices["solver"] == "one"
        assert one.optimizer.max_iter == (1 if is_one else 20)
        assert one.optimizer.rtol == (0.0 if is_one else 0.3)
    rates = [cell.optimizer.lr for cell in cells[::2]]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_what_a_search_changes():
    options = {"both": {"rtol": 0.1, "max_iter": 7}}
    space = {"lr": Space(1.0, 2.0), "solver": Space(options=options)}
    search = Search(space={**space, "term.coefficient": Space(0.1, 10.0, log=True)})
    changed = search.changes({"lr": 1.5, "solver": "both", "term.coefficient": 3.0})
    assert changed == ({"lr": 1.5, "rtol": 0.1, "max_iter": 7}, {"coefficient": 3.0})


@pytest.mark.parametrize(
    "space",
    [
        {},
        {"low": 1.0},
        {"low": 2.0, "high": 1.0},
        {"low": 0.0, "high": 1.0, "log": True},
        {"low": 1.0, "high": 2.0, "options": {"a": {}}},
    ],
)
def test_a_space_is_an_interval_or_alternatives(space):
    with pytest.raises(BenchmarkError, match="either `low` < `high`"):
        Space(**space)


@pytest.mark.usefixtures("_forked_cells")
def test_optuna_has_a_study_of_each_method(tmp_path, tree):
    # Each cell is a process of its own: one for each method will do.
    file = tmp_path / "tuned.yaml"
    file.write_text(PROTOCOL.replace("trials: 3", "trials: 1"))
    sweep = Sweep.create(tmp_path / "sweep", load_protocol(str(file)))
    work(sweep, tree, Console(quiet=True), workers=2)
    assert all(sweep.is_done(name) for name in sweep.cells)
    for study in Queue(sweep).studies.values():
        trials = study.get_trials(states=(TrialState.COMPLETE,))
        assert len(trials) == len(study.trials) == 1
        for trial in trials:
            assert trial.params == sweep.config(trial.user_attrs["cell"]).choices
    # Nothing is left.
    queue = Queue(sweep)
    queue.fill(list(sweep.cells))
    assert not queue.run_next(list(sweep.cells), lambda name: pytest.fail(name))


def test_interrupted_and_failed_cells_are_queued_by_the_next_call(sweep):
    names = list(sweep.cells)
    queue = Queue(sweep)
    queue.fill(names)
    queue.fill(names)
    seen = []
    while queue.run_next(names, lambda name: seen.append(name)):
        pass
    assert seen == names
    queue.fill(names)
    assert queue.run_next(names, lambda name: 0.5)
    counts = [len(study.trials) for study in queue.studies.values()]
    assert counts == [6, 6]


def test_cells_that_were_not_asked_for_stay_queued(sweep):
    names = list(sweep.cells)
    queue = Queue(sweep)
    queue.fill(names)
    seen = []
    while queue.run_next(names[-1:], lambda name: seen.append(name) or 0.5):
        pass
    assert seen == names[-1:]
    while queue.run_next(names, lambda name: seen.append(name) or 0.5):
        pass
    assert sorted(seen) == sorted(names)


def test_a_diverged_cell_is_the_worst(sweep, tree, monkeypatch):
    def diverge(self, name):
        folder = RunFolder(self.sweep.folder(name))
        metrics = {"fd": 1e-3}
        folder.append(EVALUATIONS, {"generator": "ema", "final": False, "metrics": metrics})
        folder.set_status("diverged" if name.endswith("trial1") else "finished", 1, 2)

    monkeypatch.setattr(Runner, "run", diverge)
    work(sweep, tree, Console(quiet=True), workers=1)
    for study in Queue(sweep).studies.values():
        values = [trial.value for trial in study.trials]
        assert values == pytest.approx([math.log(1e-3), math.inf, math.log(1e-3)])


@pytest.mark.parametrize("dies", ["in its cell", "before its first sign of life"])
def test_a_trial_whose_process_is_gone_is_queued_again(sweep, tmp_path, monkeypatch, dies):
    monkeypatch.setattr(queue, "HEARTBEAT", 1)
    monkeypatch.setattr(queue, "PATIENCE", 2)
    program = """
import os, signal, sys, time
from pathlib import Path
from optuna.storages import RDBStorage
from benchmarks.cifar10 import queue
from benchmarks.cifar10.sweep import Sweep
queue.HEARTBEAT, queue.PATIENCE = 1, 2
sign = RDBStorage.record_heartbeat
def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)
def sign_and_die(*args):
    sign(*args)
    die()
RDBStorage.record_heartbeat = die if sys.argv[2].startswith("before") else sign_and_die
sweep = Sweep(Path(sys.argv[1]))
names = list(sweep.cells)
own = queue.Queue(sweep)
own.fill(names)
own.run_next(names, lambda name: time.sleep(60))
"""
    killed = run_forked("-c", program, str(sweep.path), dies, output=tmp_path / "printed")
    assert killed == -signal.SIGKILL
    own, names = Queue(sweep), list(sweep.cells)
    assert own.is_running(names)
    seen, end = [], time.monotonic() + 60
    while own.run_next(names, lambda name: seen.append(name) or 0.0) or own.is_running(names):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert sorted(seen) == sorted(names)


def test_the_endpoint_is_the_mean_logarithm_of_the_last_three():
    def row(value, **more):
        return {"generator": "ema", "final": False, "metrics": {"fd": value, "other": 9.0}, **more}

    rows = [row(5.0), row(1.0), row(2.0), row(4.0), row(7.0, final=True)]
    rows += [row(7.0, generator="raw"), {"generator": "ema", "final": False}]
    assert endpoint(rows) == pytest.approx(math.log(8) / 3)
    assert endpoint(rows, "other") == pytest.approx(math.log(9))
    assert endpoint([]) is None


# This cell starts as those of users do, in a new interpreter.
@pytest.mark.slow
def test_another_storage_may_be_named(sweep, tree, tmp_path):
    file = tmp_path / "elsewhere.db"
    command = ["work", str(sweep.path), "--data", str(tree), "--storage", f"sqlite:///{file}"]
    assert main([*command, "--cell", "acgd_wgan_none_trial0"]) == 0
    assert not (sweep.path / "optuna.db").exists()
    names = optuna.get_all_study_names(f"sqlite:///{file}")
    assert "sweep/acgd_wgan_none" in names
