"""The conditions under which a figure was measured."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def conditions(packages: tuple[str, ...] = ()) -> dict[str, str | int]:
    """Return processor, thread count and versions, for the head of a data file."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: _version(package) for package in ("compopt", *packages)},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
