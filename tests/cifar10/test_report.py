"""The report says what the stored cells say, and marks what they cannot carry."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.config import RunConfig
from benchmarks.cifar10.report import PAGE, write_report
from benchmarks.cifar10.report.contents import (
    Report,
    contrasts_table,
    headline,
    methods_table,
    monitor_text,
    trials_table,
)
from benchmarks.cifar10.report.page import RESULTS, committed_text
from benchmarks.cifar10.stored import load_results, monitored
from benchmarks.cifar10.terms import TermConfig

FIRST, SECOND = "fd_cifar10net_v1", "fd_effnetlite0_r96_p320"
PAIRS = [("acgd_wgan_none", "control_wgan_none"), ("acgd_bce_none", "control_bce_none")]


def write(folder: Path, method: str, seed: int, distance: float, **more) -> None:
    """Write a stored cell whose three points have one distance, and a hundred times the second."""
    optimizer, loss, term = method.split("_")
    run = RunConfig(optimizer_name=optimizer, loss=loss, term_name=term, seed=seed).as_dict()
    run["optimizer"]["kind"] = "adam-alternating" if optimizer == "adam" else "acgd"
    run["optimizer"]["interaction"] = float(optimizer == "acgd")
    run["term"] = vars(TermConfig(kind=term))
    row = {"generator": "ema", "final": False, "gradient_calls": 2, "mixed_products": 2}
    row |= {"metrics": {FIRST: distance, SECOND: 100 * distance}}
    row |= {"ceilings": {FIRST: 8.0, SECOND: 800.0}, "floors": {}}
    rows = [row | {"step": n, "cost": 2.0 * n, "seconds": 1.0 * n} for n in (1, 2, 3)]
    state = more.pop("state", "finished")
    name = f"{method}_{more.pop('name', f'seed{seed}')}"
    values = {"state": state, "evaluations": rows, "monitor": more.pop("monitor", {})}
    values["run"] = run | more
    (folder / f"{name}.json").write_text(json.dumps(values))
    pixels = np.full((8 * 18 + 2, 8 * 18 + 2, 3), seed, dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.fixture
def stored(tmp_path) -> Path:
    folder = tmp_path / "stored"
    folder.mkdir()
    for seed in range(8):
        write(folder, "acgd_wgan_none", seed, 1.0 + seed / 100)
        write(folder, "control_wgan_none", seed, 1.5)
        write(folder, "acgd_bce_none", seed, 1.2)
        write(folder, "control_bce_none", seed, 0.8 + seed / 100)
    return folder


def test_the_committed_pages_are_what_the_stored_cells_give():
    """As after `python -m benchmarks.cifar10 report`."""
    page, block = committed_text()
    assert PAGE.read_text() == page
    assert (
        f"<!-- cifar10 -->\n{block}\n<!-- /cifar10 -->"
        in (PAGE.parents[1] / "README.md").read_text()
    )
    pictures = re.findall(r"results/cifar10/(\w+\.png)", page + block)
    assert {"forest.png", "curves.png"} <= set(pictures)
    for picture in pictures:
        with Image.open(RESULTS / picture) as opened:
            assert opened.width > 500


def test_the_headline_has_both_sides(stored):
    text = headline(Report(load_results(stored), PAIRS))
    shown, against = text.split("**Against it:**")
    ratio = math.prod(1 + seed / 100 for seed in range(8)) ** (1 / 8) / 1.5
    assert f"On the Wasserstein loss ACGD ends at **{ratio:.2f} times**" in shown
    assert "8 paired seeds" in shown
    assert "cross entropy" not in shown
    assert "On the cross entropy ACGD ends at **1.44 times**" in against
    assert "The smallest distance of all: control, cross entropy" in against
    assert "No explicit term has had final runs yet" in against
    assert "planned" not in against
    assert "noise" not in against
    # A baseline is not an explicit term.
    write(stored, "adam_wgan_none", 0, 0.9)
    assert "No explicit term has had final runs yet" in headline(
        Report(load_results(stored), PAIRS)
    )


def test_few_seeds_distances_near_noise_and_divergence_are_said(stored):
    for file in stored.glob("*_seed[4-7].json"):
        file.unlink()
    write(stored, "acgd_bce_none", 3, 1.0, state="diverged")
    write(stored, "adam_wgan_wgan-gp", 0, 2.1)
    report = Report(load_results(stored), PAIRS)
    text = headline(report)
    assert "Contrasts with fewer seeds than planned: 2 of 2." in text
    assert "to be ranked: Adam with gradient penalty, Wasserstein loss." in text
    assert "No explicit term" not in text
    # As far away as noise.
    worst = (1.2**3 * 8) ** (1 / 4)
    assert report.distance("acgd_bce_none", FIRST) == pytest.approx(worst)
    assert "| ACGD, cross entropy | 4, 1 diverged |" in methods_table(report)


def test_tuned_methods_replace_untuned_ones_once_all_seeds_have_run(stored):
    tuned = [(f"{o}-tuned_wgan_none", f"{c}-tuned_wgan_none") for o, c in [("acgd", "control")]]
    for seed in range(8, 16):
        untuned = headline(Report(load_results(stored), [*PAIRS, *tuned]))
        write(stored, "acgd-tuned_wgan_none", seed, 0.69 + seed / 1000)
        write(stored, "control-tuned_wgan_none", seed, 1.0)
    report = Report(load_results(stored), [*PAIRS, *tuned])
    text = headline(report)
    for each in (text, untuned):
        assert "tuned ACGD ends at **0.70 times** the Frechet distance of the tuned control" in each
    assert "fewer seeds than planned: 1 of 3." in untuned
    assert "Wasserstein loss ACGD" in untuned
    assert "Wasserstein loss ACGD" not in text
    assert "cross entropy ACGD" in text
    # Holm's factor counts the contrasts of tuned and of untuned methods apart.
    found = contrasts_table(report, [*PAIRS, *tuned]).splitlines()[2:5]
    assert [row.split("|")[-2].strip() for row in found] == ["0.0156", "0.0156", "0.0078"]


def test_samples_are_those_of_the_median_seed_that_has_some(stored):
    report = Report(load_results(stored), PAIRS)
    assert report.median("acgd_wgan_none").run["seed"] == 3
    (stored / "acgd_wgan_none_seed3.png").unlink()
    assert report.median("acgd_wgan_none").run["seed"] == 2
    assert report.median("control_bce_none").run["seed"] == 3


def test_trials_are_drawn_and_are_not_in_the_tables(stored, tmp_path):
    for number in range(4):
        choices = {"lr": 10.0 ** -(number + 2), "interaction": 1.0 + number}
        write(stored, "acgd_wgan_none", 100, 0.1, name=f"trial{number}", choices=choices)
    page = write_report(stored, tmp_path / "out")
    assert "36 finished cells" in page.read_text()
    assert "| ACGD, Wasserstein loss | 8 |" in page.read_text()
    pictures = {file.name for file in (tmp_path / "out").glob("*.png")}
    assert pictures == {"curves.png", "samples.png", "searches.png"}
    # What is compared is still untuned.
    assert "Nothing was tuned" in headline(Report(load_results(stored), PAIRS))
    write(stored, "acgd-tuned_wgan_none", 8, 0.1)
    assert "Nothing was tuned" not in headline(Report(load_results(stored), PAIRS))


def test_the_best_trial_is_shown_with_its_options(stored):
    for number, distance in enumerate([0.9, 0.3, 0.5]):
        choices = {"lr": 10.0 ** -(number + 2), "interaction": number + 1, "solver": "one"}
        write(stored, "acgd_wgan_none", 100, distance, name=f"trial{number}", choices=choices)
    *_, row = trials_table(Report(load_results(stored), PAIRS)).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    options = "learning rate 0.001, strength 2, solver one"
    assert cells == ["ACGD, Wasserstein loss", "3", "0.3", "0.5", options]


def test_alarms_are_counted_in_good_and_in_lost_runs(stored):
    report = Report(load_results(stored), PAIRS)
    assert monitor_text(report) == "No stored run has spectra yet."
    for seed, distance, alarm in [(0, 1.9, None), (1, 1.9, 7), (2, 2.1, 7), (3, 4.1, 7)]:
        monitor = {"levels": [0.5], "alarm": alarm}
        write(stored, "adam_wgan_none", seed, distance, monitor=monitor)
    more = {"choices": {"lr": 0.1}, "monitor": {"levels": [0.5], "alarm": None}}
    write(stored, "adam_wgan_none", 100, 1.0, name="trial0", **more)
    trials, runs = monitor_text(Report(load_results(stored), PAIRS)).split(". ")
    assert trials.startswith("Of 1 trials")
    assert "in 0 of 1 that ended below a quarter of noise, and in 0 of 0" in trials
    assert runs.startswith("Of 4 runs")
    assert "in 1 of 2 that ended below a quarter of noise, and in 1 of 1 that ended above" in runs


def test_stored_spectra_are_judged_by_the_present_rule():
    steps, levels = [0, 500, 1500, 2000], [0.8, 0.7, 0.65, 0.4]
    rows = [
        {"step": step, "layers": {"a": [1.0, level, 0.0, 0.0], "b": [1.0, 0.9, 0.0, 0.0]}}
        for step, level in zip(steps, levels, strict=True)
    ]
    assert monitored(rows) == {"levels": levels, "alarm": 2000}
    for row in rows[:2]:
        row["layers"]["b"][1] = 0.05
    assert monitored(rows) == {"levels": [0.05, 0.05, 0.65, 0.4], "alarm": 500}
    assert monitored(rows[:1]) == {"levels": [0.05], "alarm": None}


def test_the_report_of_no_result(tmp_path):
    assert main(["report", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert "0 finished cells" in (tmp_path / "report.md").read_text()
