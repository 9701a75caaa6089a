"""Download, verify and unpack the published archive of CIFAR-10."""

from pathlib import Path

import pooch
import requests

from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.official import FOLDER, TEST, TRAIN

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
HASH = "md5:c58f30108f718f92721af3b95e74349a"
"""Of the archive, as published beside it."""


def download(cache: Path, *, url: str = URL, known_hash: str = HASH) -> Path:
    """Return the folder of CIFAR-10 in ``cache``; download it with a progress bar if needed.

    The archive is unpacked only if it is the published one.

    Args:
        cache: folder for the archive and its contents; 350 MB.
        url: address of the archive.
        known_hash: hash of the archive, ``algorithm:hexadecimal``.

    Raises:
        BenchmarkError: if the download fails or its hash differs.
    """
    members = [f"{FOLDER}/{name}" for name in (*TRAIN, TEST)]
    try:
        pooch.retrieve(
            url,
            known_hash,
            fname=url.rsplit("/", 1)[-1],
            path=cache,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=60, chunk_size=1 << 18),
            processor=pooch.Untar(members=members, extract_dir="."),
        )
    except (requests.RequestException, OSError) as error:
        raise BenchmarkError(
            f"CIFAR-10 is neither given nor in the cache ({cache}), and the download of {url} "
            f"failed: {error}. Without a network, give the folder that holds {FOLDER} by --data "
            "or COMPOPT_DATA."
        ) from error
    except ValueError as error:
        raise BenchmarkError(f"The download is not the published archive. {error}") from error
    return cache / FOLDER
