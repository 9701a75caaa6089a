"""A file that is replaced is whole at any moment, keeps what it had, and leaves nothing behind."""

import errno
import os
import secrets
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from covering import one_each, pairwise
from forked import run_forked

from compopt import load_checkpoint, save_checkpoint
from compopt._files import replacing

ROOT = Path(__file__).resolve().parent.parent


def write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct)
def mask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_new_files_have_the_usual_mode(tmp_path, mask):
    write(tmp_path / "file", b"new")
    assert mode_of(tmp_path / "file") == 0o666 & ~mask
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("mask", "mode"),
    one_each([0o022, 0o077, 0o000], [0o600, 0o666, 0o400, 0o755]),
    indirect=["mask"],
)
def test_the_mode_of_a_file_is_kept(tmp_path, mask, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    with replacing(path) as file:
        # Nobody who could not read the old file can read the new one meanwhile.
        assert mode_of(Path(file.name)) == mode
        file.write(b"new")
    assert mode_of(path) == mode
    assert path.read_bytes() == b"new"


def test_links_lead_where_they_led(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    second = tmp_path / "second"
    link.symlink_to(Path("there") / "file")
    second.symlink_to(link)
    for content in (b"a file that is new", b"one that exists"):
        write(second, content)
        assert link.is_symlink()
        assert second.is_symlink()
        assert target.read_bytes() == content
    assert os.listdir(tmp_path / "there") == ["file"]
    assert sorted(os.listdir(tmp_path)) == ["link", "second", "there"]


def test_a_loop_of_links_is_an_error(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        write(tmp_path / "a", b"new")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_another_hard_link_keeps_the_old_file(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"old")
    os.link(path, other)
    write(path, b"new")
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("kind", ["folder", "device", "pipe"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(os.devnull)
    with pytest.raises(ValueError, match=r"regular file.*If it is a folder, add the name"):
        save_checkpoint(path, {"step": 1})
    assert os.listdir(tmp_path) == [kind]
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such folder; make it first.*missing'$"):
        write(tmp_path / "missing" / "file", b"new")


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"precious")
    path.write_bytes(b"old")
    planted = tmp_path / f"file.{'0' * 16}.part"
    planted.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(path, b"new")
    assert (victim.read_bytes(), path.read_bytes()) == (b"precious", b"old")
    # What others made is theirs to remove.
    assert planted.is_symlink()
    planted.unlink()
    write(path, b"new")
    assert path.read_bytes() == b"new"


def test_drafts_cannot_be_guessed(tmp_path):
    names = set()
    for _ in range(2):
        with replacing(tmp_path / "file") as file:
            names.add(Path(file.name))
    assert len(names) == 2
    for name in names:
        assert name.parent == tmp_path
        assert len(name.name) == len("file.0123456789abcdef.part")


def test_long_names_leave_room_for_the_draft(tmp_path):
    for name in ("x" * 255, "ü" * 127):
        write(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


class Stop(BaseException):
    """As KeyboardInterrupt, which no handler of errors catches."""


def full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stopped(*args: object, **kwargs: object) -> None:
    raise Stop


@pairwise(
    place=["writing", "fchmod", "fsync", "rename"],
    failure={"full": full, "interrupted": stopped},
    existed={"old": True, "none": False},
)
def test_failures_leave_the_old_file_and_no_draft(tmp_path, monkeypatch, place, failure, existed):
    path = tmp_path / "file"
    if existed:
        path.write_bytes(b"old")
    elif place == "fchmod":
        return
    error = {full: OSError, stopped: Stop}[failure]
    owner, name = {"fchmod": (os, "fchmod"), "fsync": (os, "fsync")}.get(place, (Path, "replace"))

    def save() -> None:
        with replacing(path) as file:
            file.write(b"half of the new one")
            if place == "writing":
                failure()

    with monkeypatch.context() as patch:
        if place != "writing":
            patch.setattr(owner, name, failure)
        with pytest.raises(error):
            save()
    assert os.listdir(tmp_path) == (["file"] if existed else [])
    assert not existed or path.read_bytes() == b"old"
    write(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, tmp_path_factory):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    program = f"""
import resource, signal, torch
from compopt import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_checkpoint({str(path)!r}, torch.zeros(100_000))
except OSError as error:
    print(error.strerror)
"""
    output = tmp_path_factory.mktemp("full") / "printed"
    assert run_forked("-c", program, output=output) == 0
    assert output.read_text().strip() == os.strerror(errno.EFBIG)
    assert os.listdir(tmp_path) == ["last.pt"]
    assert load_checkpoint(path) == {"step": 1}


def test_content_is_on_the_disk_before_it_gets_the_name(tmp_path, monkeypatch):
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        is_folder = os.path.isdir(descriptor)
        calls.append("folder" if is_folder else f"{os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write(tmp_path / "file", b"12345")
    assert calls == ["5 bytes", "rename", "folder"]


@pytest.mark.parametrize("name", ["open", "fsync"])
def test_folders_that_cannot_be_flushed(tmp_path, monkeypatch, name):
    """As on Windows and some network file systems."""
    path, real = tmp_path / "file", getattr(os, name)
    refused = []

    def refuse(what, *args):
        # Of the folder alone; a draft does not exist before it is opened.
        if os.path.exists(what) and os.path.isdir(what):
            refused.append(what)
            code = errno.EACCES if name == "open" else errno.EINVAL
            raise OSError(code, os.strerror(code))
        return real(what, *args)

    monkeypatch.setattr(os, name, refuse)
    write(path, b"new")
    assert len(refused) == 1
    assert path.read_bytes() == b"new"


def test_a_folder_that_fails_to_be_flushed_is_an_error(tmp_path, monkeypatch):
    def fail(descriptor):
        if os.path.isdir(descriptor):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]


def hammer(path: Path, num_threads: int, num_saves: int) -> int:
    """Save from many threads to one path while others read it; return the number of reads."""
    save_checkpoint(path, {"thread": -1, "values": [-1] * 1000})
    errors: list[BaseException] = []
    done = threading.Event()
    reads = 0

    def save(thread: int) -> None:
        try:
            for _ in range(num_saves):
                save_checkpoint(path, {"thread": thread, "values": [thread] * 1000})
        except BaseException as error:
            errors.append(error)

    def read() -> None:
        nonlocal reads
        try:
            while not done.is_set():
                state = load_checkpoint(path)
                assert state["values"] == [state["thread"]] * 1000
                reads += 1
        except BaseException as error:
            errors.append(error)

    savers = [threading.Thread(target=save, args=(thread,)) for thread in range(num_threads)]
    reader = threading.Thread(target=read)
    for thread in (reader, *savers):
        thread.start()
    for thread in savers:
        thread.join()
    done.set()
    reader.join()
    assert not errors, errors
    assert os.listdir(path.parent) == [path.name]
    return reads


def test_threads_save_to_one_path(tmp_path):
    assert hammer(tmp_path / "last.pt", num_threads=2, num_saves=15) > 0


@pytest.mark.slow
def test_many_threads_save_to_one_path(tmp_path):
    assert hammer(tmp_path / "last.pt", num_threads=16, num_saves=60) > 50


KILLED = """
import sys, torch
from pathlib import Path
from compopt import save_checkpoint
step = 0
while True:
    step += 1
    save_checkpoint(sys.argv[1], {"step": step, "values": torch.full((50_000,), float(step))})
    if step == 1:
        print("begun", flush=True)
"""


@pytest.mark.slow
def test_kills_leave_a_whole_checkpoint_and_drafts_of_known_names(tmp_path):
    path = tmp_path / "last.pt"
    for number in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        state = load_checkpoint(path)
        assert (state["values"] == state["step"]).all()
    left = [name for name in os.listdir(tmp_path) if name != "last.pt"]
    assert len(left) <= 30
    for draft in tmp_path.glob("last.pt.*.part"):
        left.remove(draft.name)
        draft.unlink()
    assert not left
    assert load_checkpoint(path)["step"] > 0
