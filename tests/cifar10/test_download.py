"""The archive is downloaded once, verified, and unpacked without trust."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from benchmarks.cifar10.download import Bar, download, unpack
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.official import FOLDER, TEST, TRAIN

FILES = (*TRAIN, TEST)


def archive_of(members: dict[str, bytes | str]) -> bytes:
    """Return a tar archive of files, and of symbolic links where the content is a string."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size, info.mode = len(content), 0o4777
                tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def whole():
    return archive_of({f"{FOLDER}/{name}": name.encode() for name in FILES})


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of one folder; returns the folder, its address, and what was asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    root = tmp_path / "www"
    root.mkdir()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=root)
    ) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{running.server_port}/data.tar.gz", asked
        running.shutdown()


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_an_archive_is_downloaded_once_and_unpacked(server, whole, tmp_path, capsys):
    root, url, asked = server
    (root / "data.tar.gz").write_bytes(whole)
    for _ in range(2):
        folder = download(tmp_path / "cache", url=url, known_hash=sha256(whole))
        assert folder == tmp_path / "cache" / FOLDER
        assert {file.name: file.read_bytes().decode() for file in folder.iterdir()} == {
            name: name for name in FILES
        }
    assert asked == ["/data.tar.gz"]
    assert "data.tar.gz" in capsys.readouterr().out


def test_another_archive_is_refused_and_removed(server, whole, tmp_path):
    root, url, _ = server
    (root / "data.tar.gz").write_bytes(whole[:-1])
    with pytest.raises(BenchmarkError, match="not the published archive"):
        download(tmp_path / "cache", url=url, known_hash=sha256(whole))
    assert not any(file.is_file() for file in (tmp_path / "cache").rglob("*"))


def test_without_a_network_the_remedy_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(BenchmarkError, match=r"neither given nor in the cache.*--data"):
        download(tmp_path / "cache", url="http://127.0.0.1:9/data.tar.gz", known_hash="md5:00")


@pytest.mark.parametrize(
    "change",
    [
        {f"{FOLDER}/{TEST}": "/etc/passwd"},
        {f"{FOLDER}/{TEST}": b"x" * (2**26 + 1)},
    ],
    ids=["link", "too large"],
)
def test_what_is_no_batch_file_is_refused(change, tmp_path):
    members = {f"{FOLDER}/{name}": b"" for name in FILES} | change
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(archive_of(members))
    with pytest.raises(BenchmarkError, match="not a batch file"):
        unpack(archive, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def test_nothing_but_the_batch_files_reaches_the_disk(tmp_path):
    members = {f"{FOLDER}/{name}": b"content" for name in FILES}
    members |= {"../outside": b"", f"{FOLDER}/../../outside": b"", f"{FOLDER}/more.html": b""}
    target = tmp_path / "inner" / "most"
    target.mkdir(parents=True)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(archive_of(members))
    folder = unpack(archive, target)
    assert {file.name for file in folder.iterdir()} == set(FILES)
    assert not [*tmp_path.rglob("outside")]
    assert not (folder / TEST).stat().st_mode & 0o7111


@pytest.mark.parametrize("damage", ["truncated", "missing member"])
def test_a_damaged_archive_leaves_nothing(damage, whole, tmp_path):
    if damage == "truncated":
        content = whole[: len(whole) // 2]
    else:
        content = archive_of({f"{FOLDER}/{name}": b"" for name in TRAIN})
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(BenchmarkError, match="could not be unpacked"):
        unpack(archive, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def test_the_bar_follows_the_download():
    bar = Bar("file")
    bar.total = 10
    bar.update(4)
    (task,) = bar._bars.tasks
    assert (task.completed, task.total, bar.total) == (4, 10, 10)
    bar.reset()
    assert task.completed == 0
    bar.close()
    assert bar._bars.finished is False
