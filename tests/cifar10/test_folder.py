"""What a kill leaves in the folder of a run."""

import pytest

from benchmarks.cifar10 import checkpoint, folder
from benchmarks.cifar10.errors import Interrupted
from benchmarks.cifar10.folder import RunFolder
from benchmarks.cifar10.run import Run


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    logs = RunFolder(tmp_path)
    for step in (1, 2, 3):
        logs.append(folder.LOG, {"step": step})
    with (tmp_path / folder.LOG).open("a") as stream:
        stream.write('{"step": 4, "val')
    assert [row["step"] for row in logs.rows(folder.LOG)] == [1, 2, 3]
    logs.rewind(2)
    logs.append(folder.LOG, {"step": 3})
    assert [row["step"] for row in logs.rows(folder.LOG)] == [1, 2, 3]


def test_drafts_that_a_kill_left_are_removed_when_the_run_goes_on(tiny, images, tmp_path):
    draft = tmp_path / "run" / f"{checkpoint.CURRENT}.0123456789abcdef.part"
    begun = Run(tiny, tmp_path / "run", images)
    draft.write_bytes(b"half of a checkpoint")
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        begun.complete(lambda: next(asked))
    assert not draft.exists()
