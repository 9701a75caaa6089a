"""Processes that share a cell hold the same networks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cifar10 import checkpoint
from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import LOG, RunFolder
from benchmarks.cifar10.lock import is_held
from benchmarks.cifar10.optimizers import OptimizerConfig
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
optimizers:
  adam: {kind: adam-simultaneous, lr: 1.0e-3}
  acgd: {kind: acgd, lr: 1.0e-3}
  extra-adam: {kind: extra-adam}
terms: {wgan-gp: {kind: wgan-gp}}
tables: [{optimizers: [adam, acgd, extra-adam], losses: [wgan], terms: [wgan-gp], seeds: [0]}]
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "acgd", "extra-adam"])
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


def test_a_batch_must_divide_among_the_processes(tiny, images):
    config = run_config(
        tiny.as_dict() | {"optimizer": OptimizerConfig(kind="adam-simultaneous"), "batch_size": 9}
    )
    with pytest.raises(BenchmarkError, match="multiple of the 2 processes"):
        Training(config, images.train, Ranks(0, 2))
