"""The examples run, in small, and show what they promise."""

import argparse
import csv
import importlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forked import forking

EXAMPLES = Path(__file__).parents[2] / "examples"
FORKING = forking()

Main = Callable[[list[str]], Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are slower on several threads, much slower on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def main_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Main]:
    """Return the entry of an example, imported as when it runs as a script."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    # The example starts new interpreters.
    contexts = SimpleNamespace(get_context=lambda _: FORKING)
    monkeypatch.setattr(importlib.import_module("side_by_side"), "multiprocessing", contexts)
    return lambda name: importlib.import_module(name).main


def assert_png(file: Path) -> None:
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size > 5000


def test_every_example_is_short() -> None:
    lengths = {file.name: len(file.read_text().splitlines()) for file in EXAMPLES.glob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length >= 100} == {}


def test_bilinear_game_has_the_known_distances(main_of, tmp_path, capsys) -> None:
    paths = main_of("bilinear_game")(["--out", str(tmp_path)])
    distances = {game: float(path[-1].norm()) for game, path in paths.items()}
    known = {
        ("CGD", 1.0): 0.2652,
        ("CGD", 3.0): 3.243e-4,
        ("CGD", 6.0): 1.461e-10,
        ("GDA", 1.0): 1.885,
        ("GDA", 3.0): 1542,
        ("GDA", 6.0): 3.422e9,
    }
    assert distances == pytest.approx(known, rel=5e-4)
    # Both have a closed form: one factor per step.
    for (method, alpha), distance in distances.items():
        factor = (1 + (0.2 * alpha) ** 2) ** (25 if method == "GDA" else -25)
        assert distance == pytest.approx(math.sqrt(0.5) * factor, rel=1e-6)
    assert_png(tmp_path / "paths.png")
    printed = capsys.readouterr().out
    assert "1.461e-10" in printed
    # Lines are as long as the terminal is wide.
    assert "paths.png" in printed.replace("\n", "")


@pytest.mark.parametrize(("modes", "loss"), [("ring", "wgan"), ("two", "bce")])
def test_gaussian_mixture_gan_covers_every_optimizer(main_of, tmp_path, modes, loss) -> None:
    options = ["--modes", modes, "--loss", loss, "--steps", "40", "--out", str(tmp_path)]
    history = main_of("gaussian_mixture_gan")(options)
    assert set(history) == {"ACGD", "Adam"}
    for snapshots in history.values():
        assert [snapshot.step for snapshot in snapshots] == list(range(2, 41, 2))
        assert all(torch.isfinite(snapshot.samples).all() for snapshot in snapshots)
        assert all(0 <= snapshot.good_share <= 1 for snapshot in snapshots)
    assert_png(tmp_path / f"{modes}_{loss}.png")


def test_gaussian_mixture_gan_repeats_with_its_seed(main_of) -> None:
    main_of("gaussian_mixture_gan")
    example = importlib.import_module("gaussian_mixture_gan")
    args = argparse.Namespace(modes="ring", loss="wgan", steps=20, seed=3)
    for name in example.OPTIMIZERS:
        first, second = (example.train(name, args)[-1] for _ in range(2))
        assert torch.equal(first.samples, second.samples)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_acgd_finds_all_modes_where_adam_does_not(main_of, tmp_path, seed) -> None:
    history = main_of("gaussian_mixture_gan")(["--seed", str(seed), "--out", str(tmp_path)])
    assert history["ACGD"][-1].modes_found == 8
    assert history["ACGD"][-1].good_share > 0.6
    assert history["Adam"][-1].modes_found <= 3


@pytest.mark.slow
def test_mode_collapse_covers_every_regularizer(main_of, tmp_path, capsys) -> None:
    modes = main_of("mode_collapse")(["--seeds", "2", "--passes", "20", "--out", str(tmp_path)])
    assert {"plain", "ACGD", "DRAGAN", "AdvAs", "diversity", "SR-GAN"} < set(modes)
    assert {"plain, cross entropy", "plain, non-saturating", "WGAN-GP, 5 critic steps"} < set(modes)
    assert all(len(by_seed) == 2 and set(by_seed) <= set(range(9)) for by_seed in modes.values())
    with (tmp_path / "modes.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert [(row["name"], int(row["modes"])) for row in written] == [
        (name, count) for name, by_seed in modes.items() for count in by_seed
    ]
    assert_png(tmp_path / "modes.png")
    assert str(tmp_path) in capsys.readouterr().out.replace("\n", "")


def test_modes_are_counted_by_good_samples(main_of) -> None:
    main_of("mode_collapse")
    report = importlib.import_module("mode_report")
    ring = importlib.import_module("gaussian_mixture_gan").RING
    assert report.found(ring.repeat(100, 1), ring) == (8, 1.0)
    # Half of the samples at one mode, half between the modes.
    samples = torch.cat([ring[:1].repeat(100, 1), torch.zeros(100, 2)])
    assert report.found(samples, ring) == (1, 0.5)
    # A fifth of its due, and one sample less.
    rest = torch.zeros(795, 2)
    assert report.found(torch.cat([ring[:1].repeat(20, 1), rest[:780]]), ring)[0] == 1
    assert report.found(torch.cat([ring[:1].repeat(19, 1), rest[:781]]), ring)[0] == 0


@pytest.mark.slow
def test_some_regularizers_find_modes_that_the_plain_gan_loses(main_of, tmp_path) -> None:
    modes = main_of("mode_collapse")(["--seeds", "3", "--out", str(tmp_path)])
    assert max(modes["plain"]) <= 3
    assert min(modes["plain, cross entropy"]) >= 6
    for name in ("ACGD", "AdvAs"):
        assert min(modes[name]) >= 6


@pytest.mark.slow
def test_digits_gan_ends_in_a_table_and_pictures(main_of, tmp_path, capsys) -> None:
    pytest.importorskip("sklearn")
    rows = main_of("digits_gan")(["--seconds", "0.2", "--out", str(tmp_path)])
    assert [row["loss"] for row in rows] == ["wgan"] * 3 + ["bce"] * 3
    assert [row["optimizer"] for row in rows] == ["ACGD", "Adam 0.9", "Adam 0.5"] * 2
    for row in rows:
        assert row["steps"] > 0
        assert row["seconds"] >= 0.2
        assert (row["mixed products"] > row["steps"]) == (row["optimizer"] == "ACGD")
        assert 10 < row["real to real"] < row["distance"] < 100
        assert 0 <= row["classes of 10"] <= 10
    with (tmp_path / "table.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert written == [{key: str(value) for key, value in row.items()} for row in rows]
    for name in ("samples", "wgan", "distance"):
        assert_png(tmp_path / f"{name}.png")
    assert str(tmp_path) in capsys.readouterr().out.replace("\n", "")


def test_the_judge_knows_real_digits_from_noise(main_of) -> None:
    pytest.importorskip("sklearn")
    main_of("digits_gan")
    judge = importlib.import_module("digits_judge").Judge()
    real = judge.scores(judge.images)
    assert real["distance"] == 0
    assert real["classes of 10"] == 10
    assert real["real to real"] == pytest.approx(16.4, abs=0.1)
    noise = judge.scores(16 * torch.rand(1000, 64))
    assert noise["distance"] > 2 * real["real to real"]
    assert noise["classes of 10"] < 10


def test_multipliers_reach_the_known_answer(main_of, tmp_path, capsys) -> None:
    answers = main_of("constrained")(["--steps", "600", "--out", str(tmp_path)])
    for name in ("CGD", "SLSQP"):
        assert (answers[name] - answers["known"]).abs().max() < 1e-6, name
    multipliers = answers["multipliers"]
    assert (multipliers > 0).all()
    assert multipliers.tolist() == pytest.approx([1, 0, 2], abs=1e-6)
    assert_png(tmp_path / "distance.png")
    assert "-44.000" in capsys.readouterr().out


def test_robust_regression_holds_under_shifts(main_of, tmp_path, capsys) -> None:
    pytest.importorskip("sklearn")
    errors = main_of("robust_regression")(
        ["--splits", "2", "--steps", "300", "--out", str(tmp_path)]
    )
    # Without shifts it costs a little; under those of training, and larger ones, it gains much.
    assert (errors["robust"][:, 0] < 1.25 * errors["plain"][:, 0]).all()
    assert (errors["robust"][:, 4] < 0.8 * errors["plain"][:, 4]).all()
    assert (errors["robust"][:, -1] < 0.6 * errors["plain"][:, -1]).all()
    data = json.loads((tmp_path / "errors.json").read_text())
    assert {name: len(rows) for name, rows in data.items()} == {
        "shifts": 11,
        "plain": 2,
        "robust": 2,
    }
    assert_png(tmp_path / "errors.png")
    assert "robust" in capsys.readouterr().out


def test_wgan_gp_compares_three_methods(main_of, capsys) -> None:
    scores = main_of("wgan_gp")(["--steps", "3"])
    assert list(scores) == ["Adam, 5 to 1", "ACGD, 5 to 1", "ACGD, no penalty"]
    assert all(0 <= modes <= 8 and 0 <= share <= 1 for modes, share in scores.values())
    assert "modes found of 8" in capsys.readouterr().out


def test_wgan_gp_critic_steps_share_moments_with_competitive_ones(main_of) -> None:
    main_of("wgan_gp")
    example = importlib.import_module("wgan_gp")
    gan = example.Gan()
    counts = []

    class Counted(example.ACGD):
        def step(self, *args: Any, **options: Any) -> Any:
            result = super().step(*args, **options)
            counts.append({float(state["step"]) for state in self.state.values()})
            return result

    example.ACGD, original = Counted, example.ACGD
    try:
        step = example.by_acgd(gan)
        step()
    finally:
        example.ACGD = original
    assert counts == [{1.0}, {2.0}, {3.0}, {4.0}, {5.0, 1.0}]
