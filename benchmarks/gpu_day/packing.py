"""The small files of a folder in one archive: ``python -m benchmarks.gpu_day.packing``."""

import argparse
import zipfile
from collections.abc import Sequence
from pathlib import Path

SMALL = 2**20
"""Bytes of a file from which on it stays behind: checkpoints do."""
LARGEST = 15 * 2**20
"""Bytes of an archive: larger files are not carried from a lent machine."""


def pack(folder: Path, archive: Path) -> list[str]:
    """Write the small files of ``folder`` to ``archive``; return the names of the others.

    Files are taken smallest first, for as long as the archive stays below its limit.
    """
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=_size)
    left, used = [], 0
    archive.parent.mkdir(parents=True, exist_ok=True)
    # A time before 1980, which archives do not know, is that of a file that never had one.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
        for path in files:
            used += _size(path)
            if _size(path) < SMALL and used < LARGEST:
                packed.write(path, path.relative_to(folder))
            else:
                left.append(str(path.relative_to(folder)))
    return left


def _size(path: Path) -> int:
    return path.stat().st_size


def main(argv: Sequence[str] | None = None) -> int:
    """Pack; return 1 if there is nothing to pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("archive", type=Path)
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        print(f"There is no folder {args.folder}: its runs have not begun.")
        return 1
    for name in pack(args.folder, args.archive):
        print(f"left behind: {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
