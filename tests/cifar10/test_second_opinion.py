"""Finished runs are judged once more, and the report shows what was found."""

import csv
import html
import json
import re

import pytest
import torch
from image_cases import random_images
from made_up_sweep import config_of, write_run

from benchmarks.cifar10 import second_opinion
from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.averaging import sample
from benchmarks.cifar10.data import Images
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import OPINIONS, RunFolder
from benchmarks.cifar10.report import write_report
from benchmarks.cifar10.report.runs import load_sweep
from benchmarks.cifar10.second_opinion import judge_again
from benchmarks.cifar10.sweep import Sweep

PROTOCOL = """
description: two cells
run:
  network: {kind: dcgan, width: 0.03125, latent_size: 8}
  steps: 3
  batch_size: 8
  checkpoint_every: 2
  evaluation: {at: [], images: 12, final_images: 16, ema_images: 40, norm_images: 16}
optimizers: {adam: {kind: adam-simultaneous, lr: 1.0e-3}}
terms: {none: {kind: none}}
tables: [{optimizers: [adam], losses: [wgan], terms: [none], seeds: [0, 1]}]
"""
FIRST, SECOND = "adam_wgan_none_seed0", "adam_wgan_none_seed1"


class FakeJudge:
    """Keeps the images that it is shown."""

    def __init__(self, images):
        self.seen = []
        FakeJudge.last = self

    def check(self, count, names):
        pass

    def scores(self, images, names):
        self.seen.append(images)
        found = dict.fromkeys(names, float(len(self.seen)))
        return {"n": len(images), "metrics": found, "weights_sha256": {"other": "abcd"}}


@pytest.fixture
def sweep(tmp_path, tree, monkeypatch):
    file, out = tmp_path / "two.yaml", tmp_path / "sweep"
    file.write_text(PROTOCOL)
    assert main(["run", str(file), "--out", str(out), "--data", str(tree), "--cell", FIRST]) == 0
    images = Images(random_images(48), None, "image folder")
    monkeypatch.setattr(second_opinion, "load_images", lambda data: images)
    monkeypatch.setattr(second_opinion, "Judge", FakeJudge)
    return Sweep(out)


def test_finished_runs_are_judged_once_by_their_last_networks(sweep, monkeypatch):
    built = []

    class Kept(second_opinion.Training):
        def __init__(self, *args):
            super().__init__(*args)
            built.append(self)

    monkeypatch.setattr(second_opinion, "Training", Kept)
    # The cell that waits is left alone.
    assert judge_again(sweep, ["far"], 12) == 1
    raw, ema = RunFolder(sweep.folder(FIRST)).rows(OPINIONS)
    assert (raw["generator"], ema["generator"]) == ("raw", "ema")
    assert (raw["step"], raw["n"], raw["metrics"]) == (3, 12, {"far": 1.0})
    (training,) = built
    assert training.step == 3
    networks = (training.generator, training.ema.module)
    for images, network in zip(FakeJudge.last.seen, networks, strict=True):
        assert torch.equal(images, sample(network, 16, seed=0, norm_images=16)[:12])
    assert judge_again(sweep, ["far"], 12) == 0
    assert judge_again(sweep, ["far", "near"], 12) == 1
    with pytest.raises(BenchmarkError, match="was judged by 12 images, so all runs must be; got 8"):
        judge_again(sweep, ["far"], 8)
    with pytest.raises(BenchmarkError, match="There are no cells"):
        judge_again(sweep, ["far"], 12, cells=["other"])


@pytest.fixture
def judged(tmp_path):
    """A made-up sweep whose second distance came later, for two of three runs."""
    for seed in range(3):
        path = write_run(tmp_path, config_of("acgd", "wgan", "none", seed), 2.0 + seed)
        file = path / "evaluations.jsonl"
        rows = RunFolder(path).rows(file.name)
        for row in rows:
            for part in ("metrics", "floors", "ceilings"):
                row[part].pop("fd_effnetlite0_r96_p320")
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        opinion = {
            "step": rows[-1]["step"],
            "generator": "raw",
            "n": 2000,
            "metrics": {"fd_effnetlite0_r96_p320": 1000.0 + seed, "duplicates": 0.5},
            "floors": {"fd_effnetlite0_r96_p320": 94.0},
            "floor_stds": {"fd_effnetlite0_r96_p320": 1.0},
            "ceilings": {"fd_effnetlite0_r96_p320": 2800.0},
            "weights_sha256": {"effnetlite0": "57934424"},
        }
        if seed < 2:
            (path / OPINIONS).write_text(json.dumps(opinion) + "\n")
    return tmp_path


def test_the_report_shows_them_at_their_own_number_of_images(judged, tmp_path):
    row = load_sweep(judged).runs[0].final("raw")
    assert row["metrics"]["fd_cifar10net_v1"] == 2.0
    # What the run itself was judged by stays.
    assert row["metrics"]["duplicates"] == 0.0
    out = tmp_path / "report"
    page = write_report(judged, out).read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", page, flags=re.S)))
    text = " ".join(text.split())
    for part in (
        "fd_cifar10net_v1 , n = 10,000",
        "3.00 ± 1.00",
        "fd_effnetlite0_r96_p320 , n = 2,000",
        "1000 ± 1",
        "fd_effnetlite0_r96_p320 2,000 low 94 1 2800",
        "effnetlite0 57934424",
    ):
        assert part in text, part
    with (out / "results.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["generator"] == "raw"]
    counts = {row["metric"]: row["n"] for row in rows if row["seed"] == "0"}
    assert counts["fd_effnetlite0_r96_p320"] == "2000"
    assert counts["fd_cifar10net_v1"] == counts["duplicates"] == "10000"
