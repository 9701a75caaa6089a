"""Checkpoint files: whole, or refused by name and without running anything."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from games import NetworkGame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapshots import assert_same_bits, snapshot

from compopt import ACGD, CheckpointError, load_checkpoint, save_checkpoint

quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def run() -> tuple[NetworkGame, ACGD]:
    game = NetworkGame()
    optimizer = ACGD(game.min_params, game.max_params, lr=0.01, warm_start=True)
    optimizer.step(game.loss())
    return game, optimizer


def written(folder: Path) -> bytes:
    path = folder / "whole.pt"
    if not path.exists():
        save_checkpoint(path, {"optimizer": run()[1].state_dict(), "step": 1})
    return path.read_bytes()


def test_round_trip(tmp_path):
    _, optimizer = run()
    save_checkpoint(tmp_path / "last.pt", {"optimizer": optimizer.state_dict(), "step": 1})
    game = NetworkGame(seed=1)
    loaded = ACGD(game.min_params, game.max_params, lr=0.5, warm_start=True)
    state = load_checkpoint(tmp_path / "last.pt")
    loaded.load_state_dict(state["optimizer"])
    ours, theirs = snapshot(loaded), snapshot(optimizer)
    for name in list(ours):
        if name.startswith("parameter"):
            del ours[name], theirs[name]
    assert_same_bits(ours, theirs)
    assert state["step"] == 1
    assert os.listdir(tmp_path) == ["last.pt"]


def assert_refused(folder: Path, content: bytes, match: str) -> None:
    path = folder / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as raised:
        load_checkpoint(path)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == content


@quick
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_file_is_refused(tmp_path, share):
    whole = written(tmp_path)
    assert_refused(tmp_path, whole[: int(share * len(whole))], "does not begin|truncated")


@quick
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path, share, bit):
    content = bytearray(written(tmp_path))
    content[int(share * len(content))] ^= 1 << bit
    assert_refused(tmp_path, bytes(content), "does not begin|truncated or damaged")


@quick
@given(content=st.binary(max_size=200))
def test_other_files_are_refused(tmp_path, content):
    assert_refused(tmp_path, content, "does not begin|truncated")


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "harmful.pt"
    save_checkpoint(path, {"state": Harmful(tmp_path / "harm")})
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(path)
    assert not (tmp_path / "harm").exists()
    # It would have been, by a loader that trusts the file.
    pickle.loads(pickle.dumps(Harmful(tmp_path / "harm")))
    assert (tmp_path / "harm").exists()


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full, say")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}


def test_torch_alone_does_not_notice():
    """Why there is a digest."""
    file = io.BytesIO()
    torch.save(torch.zeros(1000), file)
    content = bytearray(file.getvalue())
    content[len(content) // 2] ^= 1
    assert torch.load(io.BytesIO(bytes(content)), weights_only=True).any()
