"""A checkpoint survives a kill at any point, a full disk, and damage is seen."""

import errno
import os
from pathlib import Path

import pytest
import torch
from forked import run_forked

from benchmarks.cifar10 import checkpoint
from benchmarks.cifar10.errors import BenchmarkError
from compopt import _files, save_checkpoint


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((1000,), float(step))}


def test_the_last_two_are_kept(tmp_path):
    assert checkpoint.load(tmp_path) is None
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state(step))
    assert checkpoint.load(tmp_path)["step"] == 3
    assert checkpoint.read(tmp_path / checkpoint.PREVIOUS)["step"] == 2
    assert {file.name for file in tmp_path.iterdir()} == {checkpoint.CURRENT, checkpoint.PREVIOUS}


class Killed(BaseException):
    """Ends a save where a kill would, past every handler."""


@pytest.mark.parametrize(
    "point", ["open", "write", "fsync", "first rename", "second rename", "end"]
)
def test_a_kill_at_any_point_leaves_a_whole_checkpoint(tmp_path, monkeypatch, point):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step))

    def kill(*args, **kwargs):
        raise Killed

    renames = {"first rename": 0, "second rename": 1}
    with monkeypatch.context() as patch:
        if point == "open":
            patch.setattr(_files, "open", kill, raising=False)
        elif point == "write":
            patch.setattr(torch, "save", kill)
        elif point == "fsync":
            patch.setattr(os, "fsync", kill)
        elif point in renames:
            done, replace = [], Path.replace

            def some(self, target):
                if len(done) == renames[point]:
                    raise Killed
                done.append(target)
                return replace(self, target)

            patch.setattr(Path, "replace", some)
        else:
            patch.setattr(_files, "_sync_folder", kill)
        with pytest.raises(Killed):
            checkpoint.save(tmp_path, state(3))
    found = checkpoint.load(tmp_path)
    assert found["step"] == (3 if point in ("second rename", "end") else 2)
    assert torch.equal(found["weights"], state(found["step"])["weights"])
    # And the next one is written as if nothing had happened.
    checkpoint.save(tmp_path, state(4))
    assert checkpoint.load(tmp_path)["step"] == 4
    assert {file.name for file in tmp_path.iterdir()} == {checkpoint.CURRENT, checkpoint.PREVIOUS}


def test_content_reaches_the_disk_before_it_gets_the_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (calls.append(to.name), replace(self, to))[1]
    )
    checkpoint.save(tmp_path, state(1))
    assert calls[0] == "fsync"
    assert calls[1:] == [checkpoint.CURRENT, "fsync"]


def test_a_full_disk_is_one_error_and_keeps_the_earlier_ones(tmp_path, tmp_path_factory):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    program = f"""
import resource, signal, torch
from pathlib import Path
from benchmarks.cifar10 import checkpoint
from benchmarks.cifar10.errors import BenchmarkError
from compopt import _files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save(Path({str(tmp_path)!r}), {{"step": 3, "weights": torch.zeros(100_000)}})
except BenchmarkError as error:
    print(error)
"""
    output = tmp_path_factory.mktemp("full") / "printed"
    assert run_forked("-c", program, output=output) == 0
    printed = output.read_text()
    assert "checkpoint of step 3 could not be written" in printed
    assert os.strerror(errno.EFBIG) in printed
    assert "Earlier checkpoints are kept" in printed
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "text"])
def test_damage_is_seen_and_the_remedy_works(tmp_path, damage):
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step))
    file = tmp_path / checkpoint.CURRENT
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        # Within the numbers, where only a checksum can tell.
        place = bytes(content).rindex(torch.tensor([2.0] * 8).numpy().tobytes())
        content[place + 2] ^= 1
    changed = {
        "flipped": bytes(content),
        "truncated": bytes(content[: len(content) // 2]),
        "empty": b"",
        "text": b"not a checkpoint",
    }
    file.write_bytes(changed[damage])
    with pytest.raises(BenchmarkError, match=r"(?s)\(step 1\) is whole: remove"):
        checkpoint.load(tmp_path)
    assert file.read_bytes() == changed[damage]
    file.unlink()
    assert checkpoint.load(tmp_path)["step"] == 1


def test_two_damaged_ones_are_said_to_be(tmp_path):
    for name in (checkpoint.CURRENT, checkpoint.PREVIOUS):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BenchmarkError, match="No earlier one is whole"):
        checkpoint.load(tmp_path)


def test_another_programs_file_is_refused(tmp_path):
    save_checkpoint(tmp_path / checkpoint.CURRENT, [1, 2])
    with pytest.raises(BenchmarkError, match="not a checkpoint of this program"):
        checkpoint.load(tmp_path)
    torch.save({"step": 1}, tmp_path / checkpoint.CURRENT)
    with pytest.raises(BenchmarkError, match="has no header of a checkpoint"):
        checkpoint.load(tmp_path)
