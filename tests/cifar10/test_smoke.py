"""The smoke protocol from images to report, in small."""

import csv

import pytest

from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.folder import EVALUATIONS, RunFolder
from benchmarks.cifar10.sweep import Sweep


# The command and its processes in small are in test_sweep.py, the page in report/.
@pytest.mark.slow
def test_smoke(tmp_path, tree, capsys):
    out = tmp_path / "smoke"
    changes = {
        "run.steps": 4,
        "run.batch_size": 8,
        "run.network.width": 0.03125,
        "run.evaluation.images": 12,
        "run.evaluation.final_images": 16,
        "run.evaluation.norm_images": 32,
        "tables.0.losses": "[wgan]",
        "tables.0.terms": "[none]",
    }
    overrides = [part for key, value in changes.items() for part in ("-o", f"{key}={value}")]
    command = ["run", "smoke", "--out", str(out), "--data", str(tree), *overrides]
    assert main(command) == 0, capsys.readouterr().out
    sweep = Sweep(out)
    assert set(sweep.cells) == {"adam_wgan_none_seed0", "acgd_wgan_none_seed0"}
    for name, status in sweep.statuses().items():
        assert status["state"] == "finished"
        rows = [r for r in RunFolder(sweep.folder(name)).rows(EVALUATIONS) if r["final"]]
        last = rows[-1]
        assert last["metrics"]["fd_cifar10net_v1"] > 0
        assert last["floors"]["fd_cifar10net_v1"] > 0
    assert main(["report", str(out)]) == 0
    page = (out / "report" / "report.md").read_text()
    for name in ("ACGD, Wasserstein loss | 1", "fd_cifar10net_v1", "precision_cifar10net_v1"):
        assert name in page
    with (out / "report" / "results.csv").open(newline="") as stream:
        written = {
            (row["optimizer"], row["generator"], row["metric"]): float(row["value"])
            for row in csv.DictReader(stream)
        }
    (last,) = (row for row in rows if row["generator"] == "raw")
    assert written["acgd", "raw", "fd_cifar10net_v1"] == last["metrics"]["fd_cifar10net_v1"]
