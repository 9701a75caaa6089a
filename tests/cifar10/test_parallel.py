"""Processes that share a cell hold the same networks."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from benchmarks.cifar10 import checkpoint
from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.config import OptimizerConfig
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import LOG, RunFolder
from benchmarks.cifar10.lock import is_held
from benchmarks.cifar10.parallel import Ranks
from benchmarks.cifar10.protocol import run_config
from benchmarks.cifar10.training import Training

ROOT = Path(__file__).resolve().parents[2]

PROTOCOL = """
description: shared
run:
  network: {kind: dcgan, width: 0.03125, latent_size: 8}
  steps: 4
  batch_size: 8
  log_every: 1
  checkpoint_every: 2
  evaluation: {at: [2], images: 8, final_images: 16, ema_images: 40, norm_images: 16}
optimizers: {adam: {kind: adam-simultaneous, lr: 1.0e-3}, acgd: {kind: acgd, lr: 1.0e-3}}
terms: {wgan-gp: {kind: wgan-gp}}
tables: [{optimizers: [adam, acgd], losses: [wgan], terms: [wgan-gp], seeds: [0]}]
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "acgd"])
def test_torchrun_shares_a_cell(tmp_path, tree, optimizer):
    file, out = tmp_path / "shared.yaml", tmp_path / "sweep"
    file.write_text(PROTOCOL)
    assert main(["init", str(file), "--out", str(out)]) == 0
    name = f"{optimizer}_wgan_wgan-gp_seed0"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "benchmarks.cifar10", "cell", str(out), name]
    with subprocess.Popen(
        [*command, "--data", str(tree)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=240)
        finally:
            # Its processes end with it where it is asked to, not where it is killed.
            process.terminate()
    assert process.returncode == 0, printed
    assert printed.count("finished") == 2
    folder = out / "cells" / name
    assert [row["step"] for row in RunFolder(folder).rows(LOG)] == [1, 2, 3, 4]
    assert checkpoint.load(folder)["step"] == 4
    assert not is_held(folder)


class Meeting:
    """Two ranks in threads of one process, whose averages meet at a barrier."""

    def __init__(self):
        self.barrier = threading.Barrier(2)
        self.given = [None, None]

    def rank(self, number):
        meeting = self

        class Rank(Ranks):
            def average(self, tensors):
                meeting.given[number] = [tensor.clone() for tensor in tensors]
                meeting.barrier.wait()
                for tensor, *pair in zip(tensors, *meeting.given, strict=True):
                    tensor.copy_((pair[0] + pair[1]) / 2)
                meeting.barrier.wait()

        return Rank(number, 2)


@pytest.mark.parametrize("kind", ["adam-simultaneous", "adam-alternating"])
def test_processes_hold_the_same_networks_and_average_their_parts(tiny, images, kind):
    optimizer = OptimizerConfig(kind=kind, lr=1e-3)
    config = run_config(tiny.as_dict() | {"optimizer": optimizer, "loss": "bce"})
    meeting = Meeting()
    both = [Training(config, images.train, meeting.rank(number)) for number in range(2)]
    alone = [Training(config, images.train) for _ in range(2)]
    for number, training in enumerate(alone):
        training.batches = both[number].batches
    threads = [
        threading.Thread(target=lambda t=training: [t.advance() for _ in range(3)])
        for training in both
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    weights = [list(training.critic.parameters()) for training in (*both, *alone)]
    for first, second, *parts in zip(*weights, strict=True):
        assert torch.equal(first, second)
        assert not any(torch.equal(first, part) for part in parts)


def test_an_average_is_written_in_place(monkeypatch):
    tensors = [torch.arange(6.0).view(2, 3), torch.ones(2)]
    others = [torch.full((2, 3), 2.0), torch.zeros(2)]
    expected = [(a + b) / 2 for a, b in zip(tensors, others, strict=True)]

    def all_reduce(flat):
        flat += torch.cat([other.reshape(-1) for other in others])

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    Ranks(0, 2).average(tensors)
    for found, value in zip(tensors, expected, strict=True):
        assert torch.equal(found, value)


def test_a_batch_must_divide_among_the_processes(tiny, images):
    config = run_config(
        tiny.as_dict() | {"optimizer": OptimizerConfig(kind="adam-simultaneous"), "batch_size": 9}
    )
    with pytest.raises(BenchmarkError, match="multiple of the 2 processes"):
        Training(config, images.train, Ranks(0, 2))


def test_a_cell_whose_gradients_are_not_averaged_is_not_divided(tiny, images):
    config = run_config(tiny.as_dict() | {"optimizer": OptimizerConfig(kind="extra-adam")})
    with pytest.raises(BenchmarkError, match="extra-adam does not run on several processes"):
        Training(config, images.train, Ranks(0, 2))
