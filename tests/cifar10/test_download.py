"""The archive is downloaded once, verified, and unpacked."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from benchmarks.cifar10.download import download
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
    assert "100%" in capsys.readouterr().err


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


def test_nothing_but_the_batch_files_reaches_the_disk(server, tmp_path):
    root, url, _ = server
    members = {f"{FOLDER}/{name}": b"content" for name in FILES} | {f"{FOLDER}/more.html": b""}
    content = archive_of({**members, "../outside": b""})
    (root / "data.tar.gz").write_bytes(content)
    folder = download(tmp_path / "cache", url=url, known_hash=sha256(content))
    assert {file.name for file in folder.iterdir()} == set(FILES)
    assert not [*tmp_path.rglob("outside")]
