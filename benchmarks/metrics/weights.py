"""Files of weights, used only if they are the ones meant."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from rich.progress import wrap_file

from compopt._files import replacing

USER_AGENT = "compopt-benchmarks"


def cache_folder() -> Path:
    """Return the folder for downloads and statistics: ``COMPOPT_CACHE`` or the user's cache."""
    base = os.environ.get("COMPOPT_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "compopt"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verified(path: Path, sha256: str) -> Path:
    """Return ``path`` if it is the file meant.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its SHA-256 is another one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights at {path}.")
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"{path} has SHA-256 {found}, must have {sha256}. It is truncated or another file: "
            "remove it and get it anew. Figures from other weights do not compare."
        )
    return path


def downloaded(url: str, sha256: str, folder: Path | None = None) -> Path:
    """Return the verified file at ``url``, from the cache if it lies there.

    Args:
        url: an ``https`` address; the last part names the file.
        sha256: of the file, hexadecimal.
        folder: where it is kept; the cache by default.

    Raises:
        ConnectionError: if it is not in the cache and cannot be downloaded.
        ValueError: if the SHA-256 is another one; what was downloaded is removed.
    """
    folder = folder or cache_folder() / "weights"
    target = folder / url.rsplit("/", 1)[1]
    if target.exists():
        return verified(target, sha256)
    folder.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer, replacing(target) as stream:
            size = int(answer.headers.get("Content-Length") or 0)
            with wrap_file(answer, size, description=target.name) as reader:
                while block := reader.read(1 << 20):
                    stream.write(block)
            # Under another name until then: an interrupted download is never taken for whole.
            stream.flush()
            verified(Path(stream.name), sha256)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(
            f"{url} could not be downloaded ({error}). Without a network put the file at {target}."
        ) from error
    return target
