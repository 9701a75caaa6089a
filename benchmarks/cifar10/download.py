"""The published archive of CIFAR-10: downloaded, verified, and unpacked without trust."""

import shutil
import tarfile
import tempfile
from pathlib import Path

import pooch
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.official import FOLDER, TEST, TRAIN

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
HASH = "md5:c58f30108f718f92721af3b95e74349a"
"""Of the archive, as published beside it."""

LARGEST = 64 * 2**20
"""Bytes that no file of the archive exceeds: twice what a batch has."""


def download(cache: Path, *, url: str = URL, known_hash: str = HASH) -> Path:
    """Return the folder of CIFAR-10 in ``cache``, with a progress bar while it is downloaded.

    Args:
        cache: where archive and folder are kept; 350 MB.
        url: of the archive.
        known_hash: of the archive, ``algorithm:hexadecimal``.

    Raises:
        BenchmarkError: if it cannot be had, or is not the archive meant.
    """
    name = url.rsplit("/", 1)[-1]
    bar = Bar(name)
    try:
        archive = pooch.retrieve(
            url,
            known_hash,
            fname=name,
            path=cache,
            downloader=pooch.HTTPDownloader(progressbar=bar, timeout=60, chunk_size=1 << 18),
        )
    except (requests.RequestException, OSError) as error:
        raise BenchmarkError(
            f"CIFAR-10 is neither given nor in the cache ({cache}), and the download of {url} "
            f"failed: {error}. Without a network, give the folder that holds {FOLDER} by --data "
            "or COMPOPT_DATA."
        ) from error
    except ValueError as error:
        raise BenchmarkError(f"The download is not the published archive. {error}") from error
    finally:
        bar.close()
    return unpack(Path(archive), cache)


class Bar:
    """A progress bar with the methods that the downloader calls.

    Args:
        text: shown before the bar.
    """

    def __init__(self, text: str) -> None:
        columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bars = Progress(*columns)
        self._task = self._bars.add_task(text, total=None)
        self._total = 0.0
        self._bars.start()

    @property
    def total(self) -> float:
        """Number of bytes expected."""
        return self._total

    @total.setter
    def total(self, value: float) -> None:
        self._total = value
        self._bars.update(self._task, total=value)

    def update(self, amount: float) -> None:
        """Move on by ``amount`` bytes."""
        self._bars.advance(self._task, amount)

    def reset(self) -> None:
        """Go back to the start."""
        self._bars.reset(self._task, total=self._total)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bars.stop()


def unpack(archive: Path, target: Path) -> Path:
    """Take the batch files, and nothing else, out of the archive; return their folder.

    Only regular files of the known names are copied, by content, so no path, link or permission of
    the archive reaches the disk. The folder appears when it is whole.

    Raises:
        BenchmarkError: if the archive is truncated or a file is missing from it.
    """
    folder = target / FOLDER
    part = Path(tempfile.mkdtemp(prefix=f"{FOLDER}.", dir=target))
    try:
        with tarfile.open(archive) as tar:
            for name in (*TRAIN, TEST):
                member = tar.getmember(f"{FOLDER}/{name}")
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is None or member.size > LARGEST:
                    raise BenchmarkError(f"{archive}: {member.name} is not a batch file.")
                with stream, (part / name).open("wb") as out:
                    shutil.copyfileobj(stream, out)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise BenchmarkError(
            f"{archive} could not be unpacked to {target}: {error}. Remove it to download it anew."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
