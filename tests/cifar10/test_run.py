"""A run ends in the same weights however it is interrupted, and writes down what it did."""

import dataclasses
import json
import math
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.cifar10 import checkpoint, folder, run
from benchmarks.cifar10.config import CostConfig, EvaluationConfig, RunConfig
from benchmarks.cifar10.errors import BenchmarkError, Interrupted
from benchmarks.cifar10.folder import RunFolder
from benchmarks.cifar10.optimizers import STEPPERS, OptimizerConfig
from benchmarks.cifar10.protocol import run_config
from benchmarks.cifar10.run import Run, fail
from benchmarks.cifar10.terms import TermConfig
from benchmarks.cifar10.training import Training


def never() -> bool:
    return False


def changed(config: RunConfig, **changes: object) -> RunConfig:
    return run_config(config.as_dict() | changes)


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def assert_same_state(first: Path, second: Path) -> None:
    """Compare last checkpoints bit for bit, but for the seconds."""
    states = [checkpoint.load(path)["training"] for path in (first, second)]
    for state in states:
        assert set(state["networks"]) == {"generator", "critic", "ema"}
        state["totals"].pop("seconds")
    one, other = (leaves(state) for state in states)
    assert len(one) == len(other) > 20
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Return the folder of an undisturbed run, made once for each configuration."""
    made: dict[str, Path] = {}

    def get(config, images):
        key = json.dumps(config.as_dict())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("straight") / "run"
            assert Run(config, made[key], images).complete(never) == "finished"
        return made[key]

    return get


CELLS = [
    *((kind, "wgan", "none") for kind in STEPPERS),
    ("acgd", "bce", "srgan"),
    ("acgd", "wgan", "dropout"),
    ("adam-alternating", "hinge", "spectral-norm"),
    ("adam-simultaneous", "bce", "wgan-gp"),
    ("adam-simultaneous", "wgan", "dragan"),
]


def cell(tiny: RunConfig, kind: str, loss: str, term: str) -> RunConfig:
    optimizer = OptimizerConfig(
        kind=kind, lr=1e-3, critic_steps=2 if kind == "adam-alternating" else 1
    )
    # A rhythm that checkpoints do not fall in with.
    options = {"every": 3} if term == "srgan" else {}
    return changed(tiny, optimizer=optimizer, loss=loss, term=TermConfig(term, options))


@pytest.mark.parametrize("choice", CELLS, ids="-".join)
def test_a_run_lost_after_a_checkpoint_ends_in_the_same_weights(
    tiny, images, straight, tmp_path, choice
):
    config = cell(tiny, *choice)
    expected = straight(config, images)

    class Killed(BaseException):
        pass

    def kill_at_step_8() -> bool:
        if first.training.step == 8:
            raise Killed
        return False

    first = Run(config, tmp_path / "run", images)
    with pytest.raises(Killed):
        first.complete(kill_at_step_8)
    second = Run(config, tmp_path / "run", images)
    # The last checkpoint before step 8; what came after is done again.
    assert second.training.step == 5
    assert second.complete(never) == "finished"
    assert_same_state(tmp_path / "run", expected)
    for name in (folder.LOG, folder.EVALUATIONS, folder.SPECTRA):
        rows, others = (
            [
                {k: v for k, v in row.items() if k not in ("seconds", "memory_mib")}
                for row in RunFolder(path).rows(name)
            ]
            for path in (tmp_path / "run", expected)
        )
        assert rows == others


def test_a_run_asked_to_stop_goes_on_from_there(tiny, images, straight, tmp_path):
    for begun in range(0, 10, 2):
        part = Run(tiny, tmp_path / "run", images)
        assert part.training.step == begun
        asked = iter([False, True])
        with pytest.raises(Interrupted, match=f"step {begun + 2}"):
            part.complete(lambda asked=asked: next(asked))
        assert RunFolder(tmp_path / "run").status()["state"] == "interrupted"
    assert Run(tiny, tmp_path / "run", images).complete(never) == "finished"
    assert_same_state(tmp_path / "run", straight(tiny, images))


def test_a_budget_ends_a_run_and_divides_it(tiny, images, tmp_path):
    """ACGD of one iteration has two products: a step costs 1 + 2 * 0.5 and there are 7 of them."""
    config = changed(
        tiny,
        steps=1000,
        budget=13.0,
        cost=CostConfig(step=1.0, product=0.5),
        optimizer=OptimizerConfig(kind="acgd", lr=1e-3, rtol=0.0, max_iter=1),
        evaluation=dataclasses.replace(tiny.evaluation, at=[], points=4),
    )
    path = tmp_path / "run"
    begun = Run(config, path, images)
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        begun.complete(lambda: next(asked))
    assert begun.training.share == pytest.approx(6 / 13)
    assert Run(config, path, images).complete(never) == "finished"
    rows = RunFolder(path).rows(folder.EVALUATIONS)
    raw = [row for row in rows if row["generator"] == "raw" and not row["final"]]
    # Past 3.25, 6.5, 9.75 and 13.
    assert [row["step"] for row in raw] == [2, 4, 5, 7]
    assert [row["cost"] for row in raw] == [4.0, 8.0, 10.0, 14.0]
    assert RunFolder(path).status()["share"] == 1.0
    assert RunFolder(path).rows(folder.LOG)[-1]["cost"] == 14.0


def test_the_average_has_a_horizon_in_images(tiny, images):
    """With twice the batch, each step forgets as much as two steps of the batch."""
    decays = [Training(changed(tiny, batch_size=size), images.train).ema.decay for size in (8, 16)]
    assert decays[0] ** 2 == pytest.approx(decays[1], rel=1e-12)
    assert decays[0] == pytest.approx(math.exp(-8 / 40), rel=1e-12)


def test_what_a_run_writes(tiny, images, straight):
    path = straight(tiny, images)
    written = json.loads((path / "config.json").read_text())
    assert written == {"run": tiny.as_dict(), "data": images.describe()}
    rows = RunFolder(path).rows(folder.LOG)
    assert [row["step"] for row in rows] == [3, 4, 5, 6, 9, 10, 12]
    for before, after in pairwise(rows):
        assert after["seconds"] > before["seconds"]
        assert after["gradient_calls"] - before["gradient_calls"] == 2 * (
            after["step"] - before["step"]
        )
        assert after["mixed_products"] > before["mixed_products"]
        assert after["memory_mib"] > 50
    evaluations = RunFolder(path).rows(folder.EVALUATIONS)
    assert [(row["step"], row["generator"], row["final"]) for row in evaluations] == [
        (0, "raw", False),
        (0, "ema", False),
        (4, "raw", False),
        (4, "ema", False),
        (12, "raw", False),
        (12, "raw", True),
        (12, "ema", False),
        (12, "ema", True),
    ]
    spectra = RunFolder(path).rows(folder.SPECTRA)
    assert [row["step"] for row in spectra] == [0, 4, 12]
    for row in spectra:
        assert set(row["layers"]) == {"layers.0", "layers.2", "layers.4"}
        assert all(values[0] == pytest.approx(1) for values in row["layers"].values())
    pictures = sorted(file.name for file in (path / "samples").iterdir())
    assert pictures[0] == "step_0000000_ema.png"
    assert len(pictures) == 6
    with Image.open(path / "samples" / pictures[-1]) as grid:
        assert grid.size == (8 * 34 + 2, 8 * 34 + 2)
    environment = json.loads((path / "environment.json").read_text())
    assert environment[0]["from_step"] == 0
    assert environment[0]["torch"] == torch.__version__
    status = RunFolder(path).status()
    assert (status["state"], status["step"], status["steps"]) == ("finished", 12, 12)


def test_evaluation_does_not_disturb_training(tiny, images, straight, tmp_path):
    often = EvaluationConfig(
        at=[1, 2, 3, 7, 11], images=3, final_images=5, ema_images=40, norm_images=16
    )
    Run(changed(tiny, evaluation=often), tmp_path / "run", images).complete(never)
    one, other = (
        checkpoint.load(path)["training"] for path in (tmp_path / "run", straight(tiny, images))
    )
    for name, weights in one["networks"].items():
        for key, value in weights.items():
            assert torch.equal(value, other["networks"][name][key])


def test_other_hyperparameters_are_refused_with_the_difference(tiny, images, tmp_path):
    path = tmp_path / "run"
    Run(tiny, path, images)
    other = changed(tiny, steps=13, optimizer=OptimizerConfig(lr=2e-3))
    with pytest.raises(BenchmarkError) as caught:
        Run(other, path, images)
    message = str(caught.value)
    assert "run.steps: stored 12, asked 13" in message
    assert "run.optimizer.lr: stored 0.001, asked 0.002" in message
    assert "batch_size" not in message
    images.train[0, 0, 0, 0] ^= 1
    with pytest.raises(BenchmarkError, match=r"data.train_sha256: stored"):
        Run(tiny, path, images)


def test_a_finished_run_does_nothing_more(tiny, images, straight):
    path = straight(tiny, images)
    before = {file: file.read_bytes() for file in path.iterdir() if file.suffix == ".jsonl"}
    again = Run(tiny, path, images)
    assert again.complete(never) == "finished"
    assert again.training.step == 12
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("kind", ["adam-simultaneous", "acgd"])
def test_divergence_is_an_outcome(tiny, images, tmp_path, kind):
    config = changed(tiny, optimizer=OptimizerConfig(kind=kind, lr=1e-3))
    lost = Run(config, tmp_path / "run", images)

    def poison() -> bool:
        if lost.training.step == 7:
            with torch.no_grad():
                next(lost.training.critic.parameters()).fill_(float("nan"))
        return False

    with warnings.catch_warnings():
        # A competitive step that is not taken says so.
        warnings.simplefilter("ignore")
        assert lost.complete(poison) == "diverged"
    status = RunFolder(tmp_path / "run").status()
    assert status["state"] == "diverged"
    assert "step 9" in status["reason"]
    assert checkpoint.load(tmp_path / "run")["step"] == 5


def test_a_log_that_cannot_be_written_is_one_error(tiny, images, tmp_path, monkeypatch):
    part = Run(tiny, tmp_path / "run", images)

    def full() -> bool:
        if part.training.step == 6:
            log = tmp_path / "run" / folder.LOG
            log.unlink()
            log.symlink_to("/dev/full")
        return False

    with pytest.raises(BenchmarkError, match=r"log.jsonl could not be written: No space left"):
        part.complete(full)
    assert checkpoint.load(tmp_path / "run")["step"] == 5


def test_a_damaged_checkpoint_stops_the_run_and_nothing_is_lost(tiny, images, straight, tmp_path):
    path = tmp_path / "run"
    part = Run(tiny, path, images)
    with pytest.raises(Interrupted):
        part.complete(lambda: part.training.step == 11)
    (path / checkpoint.CURRENT).write_bytes(b"garbage")
    with pytest.raises(BenchmarkError, match=r"damaged.*\(step 10\) is whole"):
        Run(tiny, path, images)
    (path / checkpoint.CURRENT).unlink()
    assert Run(tiny, path, images).complete(never) == "finished"
    assert_same_state(path, straight(tiny, images))


def test_failures_are_noted_in_the_status(tmp_path):
    fail(tmp_path, BenchmarkError("No room."))
    assert RunFolder(tmp_path).status()["reason"] == "No room."
    fail(tmp_path, ZeroDivisionError("by zero"))
    assert RunFolder(tmp_path).status()["reason"] == "ZeroDivisionError: by zero"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 49}, "`batch_size` must be at most the number of images, 48"),
        ({"term": {"kind": "r1", "options": {"gamma": 1.0}}}, "known: coefficient"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(tiny, images, tmp_path, change, message):
    with pytest.raises(BenchmarkError, match=message):
        Run(changed(tiny, **change), tmp_path / "run", images)


def test_cells_of_a_seed_see_the_same_images(tiny, images):
    seen = []
    for choice in (("acgd", "wgan", "none"), ("adam-alternating", "bce", "wgan-gp")):
        training = Training(cell(tiny, *choice), images.train)
        draws = [training.batches.draw(k).real for k in range(4)]
        seen.append(torch.stack(draws))
    assert torch.equal(*seen)


def test_the_averaged_generator_is_the_average(tiny, images):
    training = Training(changed(tiny, network={"width": 1 / 32, "latent_size": 8}), images.train)
    name, param = next(iter(training.generator.named_parameters()))
    expected = param.detach().clone()
    decay = math.exp(-tiny.batch_size / tiny.evaluation.ema_images)
    for _ in range(4):
        training.advance()
        expected = decay * expected + (1 - decay) * param.detach()
    average = dict(training.ema.module.named_parameters())[name]
    assert torch.allclose(average, expected, rtol=1e-5, atol=1e-8)
    for own, other in zip(training.ema.module.buffers(), training.generator.buffers(), strict=True):
        assert torch.equal(own, other)


def test_status_is_not_written_at_every_step(tiny, images, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(run, "STATUS_EVERY", 1000.0)
    monkeypatch.setattr(
        run.RunFolder, "set_status", lambda self, state, *a, **k: written.append(state)
    )
    Run(tiny, tmp_path / "run", images).complete(never)
    assert written == ["running", "finished"]
