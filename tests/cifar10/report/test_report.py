"""The report of made-up runs: what it says, what it marks, what it must not say."""

import csv
import html
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from made_up_sweep import config_of, write_run, write_sweep

from benchmarks.cifar10.report import write_report
from benchmarks.cifar10.report.cells import Cells, Value
from benchmarks.cifar10.report.findings import findings, verdict
from benchmarks.cifar10.report.page import entry, troubles
from benchmarks.cifar10.report.pictures import level
from benchmarks.cifar10.report.published import beside
from benchmarks.cifar10.report.runs import load_sweep
from benchmarks.cifar10.report.style import COLORS, INK, looks

FD, SECOND = "fd_cifar10net_v1", "fd_effnetlite0_r96_p320"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def cells(sweep) -> Cells:
    return Cells(load_sweep(sweep).runs)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A sweep of four runs, quick to draw."""
    folder = tmp_path_factory.mktemp("small")
    write_run(folder, config_of("adam", "wgan", "none", 0), 3.0)
    write_run(folder, config_of("adam", "wgan", "wgan-gp", 0), 1.2, alarm=True)
    write_run(folder, config_of("acgd", "wgan", "none", 0), 0.9)
    reason = "Weights of the <critic> & more are not finite."
    write_run(folder, config_of("acgd", "wgan", "wgan-gp", 0), 2.0, state="diverged", reason=reason)
    return folder


@pytest.fixture(scope="module")
def page(small, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("out") / "report"
    written = write_report(small, out)
    assert written == out / "report.html"
    pictures = {path.stem for path in out.glob("*.png")}
    assert {f"{FD}_{axis}_raw" for axis in ("steps", "seconds", "gradients")} < pictures
    assert {"samples_wgan", "spectra_levels", "spectra_wgan", f"{FD}_steps_ema"} < pictures
    for picture in out.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    with (out / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    # Three finished runs, two generators, five metrics and the number of steps.
    assert len(rows) == 36
    assert {row["n"] for row in rows} == {"10000"}
    assert {row["value"] for row in rows if row["metric"] == "steps"} == {"3000"}
    return written.read_text()


def test_the_page_needs_no_other_file(page):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page
    assert "url(http" not in page
    identifiers = re.findall(r' id="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    for target in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page):
        assert (target[0] or target[1]) in identifiers


def test_pictures_follow_the_pages_colours(page):
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(pictures) == 10
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert INK not in picture
        assert "currentColor" in picture
    assert "prefers-color-scheme: dark" in page


def test_what_runs_say_is_escaped(page):
    assert "Weights of the &lt;critic&gt; &amp; more are not finite." in page


def test_the_page_has_every_part(page):
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", page, flags=re.S)))
    for part in (
        "What was shown",
        "What was not shown",
        "† diverged",
        "collapse monitor",
        "conv.2: 0.45 fell to 0.06",
        "not comparable: our network is dcgan at width 0.25",
        "Weights (SHA-256): cifar10net_v1",
        "a processor",
        "n = 10,000",
        "0.0077",
    ):
        assert part in " ".join(text.split()), part
    assert "undefined" not in text.lower()


def test_cells_are_means_over_seeds_with_marks(cells):
    assert cells.losses == ["wgan", "bce"]
    assert cells.terms[0] == "none"
    assert cells.optimizers == ["adam", "acgd"]
    value = cells.by_key["adam", "wgan", "none"].value(FD)
    assert value.values == (3.0, 3.05, 3.1)
    assert value.mean == pytest.approx(3.05)
    assert value.spread == pytest.approx(0.05)
    assert str(value) == "3.05 ± 0.05"
    ema = cells.by_key["adam", "wgan", "none"].value(FD, "ema")
    assert ema.mean == pytest.approx(0.9 * 3.05)

    def marks(*key):
        return entry(cells, cells.by_key.get(key), FD).marks

    assert marks("acgd", "wgan", "diversity") == "† diverged"
    assert marks("adam", "bce", "advas") == "✗ failed"
    assert marks("acgd", "bce", "advas") == marks("acgd", "wgan", "advas") == "… unfinished"
    assert not entry(cells, None, FD).exists


def test_the_best_is_marked_and_hopeless_cells_are_not_ranked(cells):
    best = cells.best(FD, "wgan")
    assert best.key[0] == "acgd"
    fields = {key: entry(cells, cell, FD) for key, cell in cells.by_key.items() if key[1] == "wgan"}
    assert sum(field.is_best for field in fields.values()) == 1
    assert fields["adam", "wgan", "diversity"].hopeless
    assert not fields["adam", "wgan", "none"].hopeless
    score = cells.best("cs_cifar10net_v1", "wgan")
    assert score.value("cs_cifar10net_v1").mean == max(
        cell.value("cs_cifar10net_v1").mean
        for key, cell in cells.by_key.items()
        if key[1] == "wgan" and cell.value("cs_cifar10net_v1")
    )


def test_settings_without_a_column_are_listed_beside(cells):
    assert [cell.key for cell in cells.others] == [("adam-lr1e-3", "wgan", "none")]


def test_failures_divergences_and_unfinished_runs_are_all_listed(cells):
    lines = troubles(cells)
    by_run = {line["run"]: line for line in lines if line["what"] != "collapse monitor"}
    assert {name: line["what"] for name, line in by_run.items()} == {
        "acgd_wgan_diversity_seed0": "diverged",
        "adam_bce_advas_seed0": "failed",
        "acgd_bce_advas_seed0": "unfinished (running)",
        "acgd_wgan_advas_seed0": "unfinished (waiting)",
    }
    assert by_run["acgd_wgan_diversity_seed0"]["why"] == "The value is nan."
    assert [line["run"] for line in lines if line["what"] == "collapse monitor"] == [
        "acgd_wgan_srgan_seed0"
    ]


def test_both_sides_of_the_cost_are_said(cells):
    (sentence,) = (
        line
        for line in findings(cells).shown
        if line.startswith("wgan: acgd without an explicit term against adam + wgan-gp")
    )
    # Ahead at equal steps, behind at equal seconds.
    assert "after the last step better" in sentence
    assert "after the same 90 s worse" in sentence
    assert "a step takes 3.3 times as long" in sentence


def two_cells(folder, ours, theirs, *, second=None, seeds=(0, 1, 2)) -> Cells:
    for seed in seeds:
        spread = 0.01 * seed
        write_run(folder, config_of("acgd", "wgan", "none", seed), ours + spread, second=second)
        write_run(folder, config_of("adam", "wgan", "wgan-gp", seed), theirs + spread)
    return Cells(load_sweep(folder).runs)


def test_a_conclusion_needs_both_distances(tmp_path):
    agreeing = findings(two_cells(tmp_path / "agree", 1.0, 2.0))
    assert any("after the last step better" in line for line in agreeing.shown)
    # Better by the first distance, worse by the second.
    found = findings(two_cells(tmp_path / "disagree", 1.0, 2.0, second=900.0))
    assert found.shown == ["No comparison of an implicit with another cell is conclusive."]
    assert any("the distances disagree, so nothing is concluded" in s for s in found.not_shown)


def test_a_single_seed_concludes_nothing(tmp_path):
    found = findings(two_cells(tmp_path, 1.0, 2.0, seeds=(0,)))
    assert found.shown == ["No comparison of an implicit with another cell is conclusive."]
    assert any("rest on a single seed on one side: 1." in line for line in found.not_shown)


def test_verdicts():
    low, high = Value((1.0, 1.1, 0.9)), Value((2.0, 2.1, 1.9))
    assert (verdict(low, high), verdict(high, low)) == ("better", "worse")
    assert verdict(low, Value((1.05, 1.2, 0.95))) == "alike"
    # Two wide seeds a side: means far apart in standard errors, not by Student's distribution.
    assert verdict(Value((1.0, 2.0)), Value((3.0, 4.0))) == "alike"
    assert verdict(low, Value((2.0,))) == "single"
    assert verdict(Value((7.8, 7.9), True), Value((9.0, 9.1), True)) == "noise"
    assert verdict(Value((1.0, 1.0)), Value((2.0, 2.0))) == "better"
    assert verdict(Value((1.0, 1.0)), Value((1.0, 1.0))) == "alike"


def test_limits_of_the_budget_are_said(cells):
    text = " ".join(findings(cells).not_shown)
    for part in ("No FID or IS", "3,000 steps", "468,500", "width 0.25", "by chance"):
        assert part in text
    assert "Runs not finished: 2 of 41." in text


def test_another_n_does_not_enter_the_tables(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, config_of("adam", "wgan", "none", seed), 1.0)
    write_run(tmp_path, config_of("adam", "wgan", "none", 2), 5.0, final_n=2000)
    cells = Cells(load_sweep(tmp_path).runs)
    assert cells.by_key["adam", "wgan", "none"].value(FD).values == (1.0, 1.0)
    assert [line["what"] for line in troubles(cells)] == ["left out"]


def test_published_figures_stand_beside_ours_only_under_their_conditions(tmp_path):
    paper = {"steps": 468_500, "network": {"kind": "dcgan", "width": 1.0}}
    config = config_of("acgd", "wgan", "none", 0, **paper)
    # Few rows for a long run.
    path = write_run(tmp_path, config | {"steps": 500}, 0.5)
    (path / "config.json").write_text(json.dumps({"run": config}))
    file = path / "evaluations.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()[:-1]]
    for row in rows:
        row["metrics"] |= {"FID-50k-train": 22.4, "IS-50k": 5.4, "IS-50k_std": 0.1}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {
        (row.published.kind, row.published.metric): row
        for row in beside(Cells(load_sweep(tmp_path).runs))
        if row.published.term != "spectral-norm"
    }
    assert found["acgd", "FID"].ours == "acgd: 22.40 (FID-50k-train)"
    assert found["acgd", "IS"].ours == "acgd: 5.40 (IS-50k)"
    assert found["adam", "IS"].why_not == "we have no such cell"


def test_a_report_before_any_result(tmp_path):
    config = config_of("acgd", "wgan", "none", 0)
    stored = {"description": "Nothing yet.", "cells": [config]}
    (tmp_path / "sweep.json").write_text(json.dumps(stored))
    page = write_report(tmp_path, tmp_path / "report").read_text()
    assert "No run has a final evaluation yet." in page
    with pytest.raises(FileNotFoundError, match="neither"):
        write_report(tmp_path / "nothing", tmp_path / "other")


def test_colours_are_of_kinds_and_dashes_of_settings():
    styles = looks([("adam", "adam-simultaneous"), ("adam-lr", "adam-simultaneous"), ("a", "acgd")])
    assert styles["adam"]["color"] == styles["adam-lr"]["color"] != styles["a"]["color"]
    assert styles["adam"]["linestyle"] != styles["adam-lr"]["linestyle"]
    assert len(set(COLORS.values())) == len(COLORS)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("color", COLORS.values(), ids=COLORS)
def test_lines_stand_out_on_light_and_dark_pages(color):
    for background in ("#ffffff", "#16171a"):
        pair = sorted((luminance(color) + 0.05, luminance(background) + 0.05))
        assert pair[1] / pair[0] >= 3


def test_the_level_leaves_the_largest_value_out():
    assert level([1.0, 0.5, 0.3]) == pytest.approx(0.4)
    assert level([1.0]) is None


def test_where_all_cells_are_hopeless_none_is_best(tmp_path):
    write_run(tmp_path, config_of("adam", "wgan", "none", 0), 7.5)
    write_run(tmp_path, config_of("acgd", "wgan", "none", 0), 7.9)
    cells = Cells(load_sweep(tmp_path).runs)
    assert cells.best(FD, "wgan") is None
    assert all(entry(cells, cell, FD).hopeless for cell in cells.by_key.values())


def test_only_finished_runs_enter_the_tables(tmp_path):
    path = write_run(tmp_path, config_of("adam", "wgan", "none", 0), 1.0)
    (path / "status.json").write_text('{"state": "diverged", "step": 3000, "reason": "nan"}')
    cells = Cells(load_sweep(tmp_path).runs)
    assert cells.by_key["adam", "wgan", "none"].value(FD) is None
