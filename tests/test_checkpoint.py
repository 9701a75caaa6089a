"""Checkpoint files: whole, or refused by name and without running anything."""

import argparse
import hashlib
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
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

from compopt import ACGD, CheckpointError, load_checkpoint, save_checkpoint
from compopt.distributed import Sharded

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
    assert_refused(tmp_path, whole[: int(share * len(whole))], "has no header|truncated")


@quick
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path, share, bit):
    content = bytearray(written(tmp_path))
    content[int(share * len(content))] ^= 1 << bit
    assert_refused(tmp_path, bytes(content), "has no header|truncated or damaged")


@quick
@given(content=st.binary(max_size=200))
def test_other_files_are_refused(tmp_path, content):
    assert_refused(tmp_path, content, "has no header|truncated")


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


def test_objects_load_where_they_are_trusted(tmp_path):
    path = tmp_path / "options.pt"
    save_checkpoint(path, argparse.Namespace(lr=0.1))
    with pytest.raises(
        CheckpointError, match=r"values: argparse\.Namespace\. .*safe_globals\(\["
    ) as raised:
        load_checkpoint(path)
    # torch's own advice does not apply to this function.
    assert "weights_only" not in str(raised.value)
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert load_checkpoint(path).lr == 0.1


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_payload_cut_off_before_its_digest_was_made(tmp_path, share):
    payload = io.BytesIO()
    torch.save({"weights": torch.zeros(100)}, payload)
    data = payload.getvalue()[: int(share * len(payload.getvalue()))]
    magic = written(tmp_path)[:21]
    content = magic + hashlib.sha256(data).digest() + data
    assert_refused(
        tmp_path, content, f"holds {len(data)} bytes that match their digest.*cut off before"
    )


def test_checkpoint_for_another_machine(tmp_path):
    path = tmp_path / "device.pt"
    save_checkpoint(path, {"weights": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"is whole, but cannot be loaded here: .*nowhere"):
        load_checkpoint(path, map_location="nowhere")
    assert load_checkpoint(path, map_location="cpu")["weights"].tolist() == [0, 0]


@pytest.fixture
def alone():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Both(nn.Module):
    def __init__(self, game: NetworkGame) -> None:
        super().__init__()
        self.generator, self.critic = game.generator, game.critic


def test_sharded_state_is_refused_and_the_remedies_work(tmp_path, alone):
    game = NetworkGame()
    optimizer = ACGD(game.min_params, game.max_params, process_group=Sharded(dist.group.WORLD))
    optimizer.step(game.loss())
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(
        TypeError, match=r"sharded.*`torch.distributed.checkpoint.save\(state, checkpoint_id"
    ):
        save_checkpoint(path, {"step": 2, "optimizer": optimizer.state_dict()})
    assert load_checkpoint(path) == {"step": 1}
    state = get_optimizer_state_dict(Both(game), optimizer)
    torch.distributed.checkpoint.save(state, checkpoint_id=tmp_path / "folder")
    assert (tmp_path / "folder" / ".metadata").exists()
    full = StateDictOptions(full_state_dict=True)
    save_checkpoint(path, get_optimizer_state_dict(Both(game), optimizer, options=full))
    stored = load_checkpoint(path)["state"]["critic.0.weight"]["exp_avg_sq"]
    whole = optimizer.state[game.max_params[0]]["exp_avg_sq"].full_tensor()
    assert torch.equal(stored.flatten(), whole)


def test_torch_alone_does_not_notice():
    """Why there is a digest."""
    file = io.BytesIO()
    torch.save(torch.zeros(1000), file)
    content = bytearray(file.getvalue())
    content[len(content) // 2] ^= 1
    assert torch.load(io.BytesIO(bytes(content)), weights_only=True).any()
