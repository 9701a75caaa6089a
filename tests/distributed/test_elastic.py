"""Ranks that are killed lose nothing."""

import random

import pytest
import torch
from elastic import kill_one, start
from snapshots import bits
from torch import Tensor

from compopt import load_checkpoint


def tensors_in(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for key in value for tensor in tensors_in(value[key])]
    return []


def run(out, num_steps: int, num_kills: int) -> dict:
    """Return the final checkpoint of a run that was killed on the way."""
    out.mkdir()
    randomness = random.Random(0)
    process = start(out, num_steps, max_restarts=num_kills)
    try:
        for _ in range(num_kills):
            kill_one(out, randomness)
        assert process.wait(timeout=300) == 0, (out / "log").read_text()
    finally:
        process.terminate()
        process.wait()
    return load_checkpoint(out / "checkpoint.pt")


def assert_equal_runs(tmp_path, num_steps: int, num_kills: int) -> None:
    undisturbed = run(tmp_path / "undisturbed", num_steps, 0)
    disturbed = run(tmp_path / "disturbed", num_steps, num_kills)
    log = (tmp_path / "disturbed" / "log").read_text()
    assert log.count("exitcode: -9") == num_kills
    assert undisturbed["step"] == disturbed["step"] == num_steps
    ours, theirs = tensors_in(disturbed), tensors_in(undisturbed)
    assert len(ours) == len(theirs) > 24
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path):
    assert_equal_runs(tmp_path, num_steps=800, num_kills=10)


@pytest.mark.slow
def test_example_runs_under_torchrun(tmp_path):
    final = run(tmp_path / "run", num_steps=3, num_kills=0)
    assert final["step"] == 3
    assert "3 steps since the last start" in (tmp_path / "run" / "log").read_text()
