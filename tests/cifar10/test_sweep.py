"""Sweeps: shared by processes, resumed after kills, with clear errors at the command line."""

import json
import random
import re
import signal
import sys
import time

import pytest
import torch
from forked import Forked

from benchmarks.cifar10 import checkpoint
from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.folder import EVALUATIONS, LOG, RunFolder
from benchmarks.cifar10.lock import held, is_held
from benchmarks.cifar10.monitor import share_done
from benchmarks.cifar10.sweep import Sweep

SMALL = """
description: small
run:
  network: {{kind: dcgan, width: 0.03125, latent_size: 8}}
  steps: {steps}
  batch_size: 8
  log_every: 2
  checkpoint_every: {every}
  evaluation: {{at: [0], images: 8, final_images: 16, ema_images: 40, norm_images: 16}}
optimizers:
  adam: {{kind: adam-simultaneous, lr: 1.0e-3}}
  acgd: {{kind: acgd, lr: 1.0e-3}}
terms: {{none: {{kind: none}}, wgan-gp: {{kind: wgan-gp}}}}
tables:
  - {{optimizers: [acgd, adam], losses: [wgan], terms: [none], seeds: [0]}}
"""


def protocol(tmp_path, steps=6, every=2):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL.format(steps=steps, every=every))
    return str(file)


def start(out, *arguments):
    """Start the command line in a new process, which prints into a file beside ``out``."""
    command = [sys.executable, "-W", "error", "-m", "benchmarks.cifar10", *map(str, arguments)]
    with out.with_suffix(".txt").open("a") as printed:
        return Forked(command, stdout=printed)


def weights(folder):
    """Return the final networks and the optimizer's state of a cell, as bytes by name."""
    state = checkpoint.load(folder)["training"]
    found = {}

    def collect(value, name):
        if isinstance(value, torch.Tensor):
            found[name] = value.numpy().tobytes()
        elif isinstance(value, dict):
            for key, part in value.items():
                collect(part, f"{name}.{key}")

    collect(state, "")
    return found


@pytest.mark.usefixtures("_forked_cells")
def test_a_sweep_runs_is_left_alone_when_done_and_shows_its_state(tmp_path, tree, capsys):
    """The command, end to end, with both cells side by side in processes of their own."""
    out = tmp_path / "sweep"
    arguments = ["run", protocol(tmp_path), "--out", str(out), "--data", str(tree)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("begins") == 2
    sweep = Sweep(out)
    assert [status["state"] for status in sweep.statuses().values()] == ["finished"] * 2
    for name in sweep.cells:
        folder = sweep.folder(name)
        assert RunFolder(folder).rows(LOG)[-1]["step"] == 6
        assert RunFolder(folder).rows(EVALUATIONS)[-1]["final"]
        assert not is_held(folder)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.pt")}
    assert len(before) == 4
    assert main(arguments) == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert main(["status", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "begins" not in printed
    assert len(re.findall("finished", printed)) == 4


def kill_often(out, name, tree, *, kills, rng, steps):
    """Run a cell, killing it ``kills`` times at random moments; return at which steps."""
    folder, at = out / "cells" / name, []
    for _ in range(kills):
        process = start(out, "cell", out, name, "--data", tree)
        deadline = time.monotonic() + 120
        begun = checkpoint.load(folder)["step"] if (folder / checkpoint.CURRENT).exists() else 0
        # Wait until it trains: then any moment may be that of a step, a log or a checkpoint.
        target = begun + rng.randrange(1, max(2, (steps - begun) // (kills - len(at) + 1)))
        while process.poll() is None and time.monotonic() < deadline:
            rows = RunFolder(folder).rows(LOG)
            if rows and target <= rows[-1]["step"] < steps:
                break
            time.sleep(0.002)
        time.sleep(rng.random() * 0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        at.append(RunFolder(folder).rows(LOG)[-1]["step"])
    return at


@pytest.mark.parametrize(
    ("kills", "steps"),
    [(1, 40), pytest.param(10, 600, marks=pytest.mark.slow)],
    ids=["once", "ten times"],
)
def test_a_killed_cell_ends_in_the_same_weights(tmp_path, tree, kills, steps):
    file = protocol(tmp_path, steps=steps, every=3)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for out in (calm, rough):
        assert main(["init", file, "--out", str(out)]) == 0
    name = "acgd_wgan_none_seed0"
    at = kill_often(rough, name, tree, kills=kills, rng=random.Random(5), steps=steps)
    assert len(at) == kills
    assert all(step < steps for step in at)
    for out in (rough, calm):
        assert main(["cell", str(out), name, "--data", str(tree)]) == 0
    first, second = (weights(out / "cells" / name) for out in (calm, rough))
    assert len(first) > 30
    assert first == second
    for out in (calm, rough):
        steps_logged = [row["step"] for row in RunFolder(out / "cells" / name).rows(LOG)]
        assert steps_logged == sorted(set(steps_logged))
        assert steps_logged[-1] == steps


def test_a_signal_ends_a_cell_after_a_checkpoint(tmp_path, tree):
    out = tmp_path / "sweep"
    main(["init", protocol(tmp_path, steps=100_000, every=50_000), "--out", str(out)])
    name = "adam_wgan_none_seed0"
    process = start(out, "cell", out, name, "--data", tree)
    log = out / "cells" / name / LOG
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    process.terminate()
    code, printed = process.wait(), out.with_suffix(".txt").read_text()
    assert code == 128 + signal.SIGTERM, printed
    assert "after a checkpoint" in printed
    step = checkpoint.load(out / "cells" / name)["step"]
    assert 0 < step < 50_000
    status = Sweep(out).status(name)
    assert (status["state"], status["step"]) == ("interrupted", step)


@pytest.mark.usefixtures("_forked_cells")
def test_cells_held_by_others_are_passed_over(tmp_path, tree, capsys):
    out = tmp_path / "sweep"
    main(["init", protocol(tmp_path, steps=2), "--out", str(out)])
    other = out / "cells" / "acgd_wgan_none_seed0"
    other.mkdir(parents=True)
    with held(other):
        assert main(["cell", str(out), other.name, "--data", str(tree)]) == 75
        capsys.readouterr()
        assert main(["work", str(out), "--data", str(tree)]) == 0
    printed = capsys.readouterr().out
    assert "adam_wgan_none_seed0: finished" in printed
    assert "acgd_wgan_none_seed0: run elsewhere" in printed
    assert Sweep(out).status(other.name)["state"] == "waiting"


@pytest.mark.usefixtures("_forked_cells")
def test_a_failing_cell_is_noted_and_the_others_run(tmp_path, tree, capsys):
    out = tmp_path / "sweep"
    main(["init", protocol(tmp_path, steps=2), "--out", str(out)])
    broken = out / "cells" / "acgd_wgan_none_seed0"
    broken.mkdir(parents=True)
    (broken / checkpoint.CURRENT).write_bytes(b"garbage")
    assert main(["work", str(out), "--data", str(tree)]) == 1
    states = {name: status["state"] for name, status in Sweep(out).statuses().items()}
    assert states == {"acgd_wgan_none_seed0": "failed", "adam_wgan_none_seed0": "finished"}
    assert "has no header of a checkpoint" in Sweep(out).status(broken.name)["reason"]
    assert "failed. " in capsys.readouterr().out
    # Once put right, the same command goes on.
    (broken / checkpoint.CURRENT).unlink()
    assert main(["work", str(out), "--data", str(tree)]) == 0


def test_a_cell_that_is_killed_from_outside_is_a_failure(tmp_path, tree, monkeypatch, capsys):
    out = tmp_path / "sweep"
    main(["init", protocol(tmp_path, steps=2), "--out", str(out)])
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho out of memory\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert main(["work", str(out), "--data", str(tree), "--cell", "adam_wgan_none_seed0"]) == 1
    reason = Sweep(out).status("adam_wgan_none_seed0")["reason"]
    assert reason == "The process ended by signal SIGKILL. out of memory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing", "--out", "{out}"], "no protocol 'nothing'"),
        (["run", "smoke", "--out", "{out}", "-o", "run.stps=1"], "Did you mean"),
        (["run", "smoke", "--out", "{out}", "--workers", "0"], "`--workers` must be 1 or more"),
        (
            ["run", "smoke", "--out", "{out}", "-o", "searches=[{{space: {{lr: {{low: 1}}}}}}]"],
            "low",
        ),
        (["run", "smoke", "--out", "{out}", "--data", "{out}"], "There are no images at"),
        (["run", "smoke", "--out", "/proc/nothing"], "cannot be made"),
        (["work", "{out}"], "is no sweep"),
        (["status", "{out}"], "is no sweep"),
        (["data", "--data", "{out}"], "There are no images at"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    out = str(tmp_path / "sweep")
    assert main([argument.format(out=out) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_unknown_cells_are_refused(tmp_path, tree, capsys):
    out = tmp_path / "sweep"
    main(["init", protocol(tmp_path), "--out", str(out)])
    for command in (["work", str(out), "--cell", "x"], ["cell", str(out), "x"]):
        assert main([*command, "--data", str(tree)]) == 1
        assert "no cell 'x'" in capsys.readouterr().err


def test_a_sweep_is_not_begun_anew_with_other_hyperparameters(tmp_path, capsys):
    out = str(tmp_path / "sweep")
    assert main(["init", protocol(tmp_path), "--out", out]) == 0
    assert main(["init", protocol(tmp_path), "--out", out]) == 0
    assert main(["init", protocol(tmp_path), "--out", out, "-o", "run.batch_size=9"]) == 1
    error = capsys.readouterr().err
    assert "acgd_wgan_none_seed0.batch_size: stored 8, asked 9" in error
    assert (
        json.loads((tmp_path / "sweep" / "sweep.json").read_text())["cells"][0]["batch_size"] == 8
    )


def test_progress_is_the_share_of_what_runs_out_first():
    assert share_done({"state": "running", "share": 0.3}) == 0.3
    assert share_done({"state": "diverged", "step": 3}) == 1.0
    assert share_done({"state": "waiting"}) == 0.0
