"""Shared by benchmarks: arguments, clocks, rounds, percentiles, files, tables and plots."""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
Clock = Callable[[Callable[[], object]], float]
"""Returns how many seconds a function takes."""
K = TypeVar("K")


def arguments(
    doc: str, *, rounds: int | None = None, out: Path | None = RESULTS, device: bool = False
) -> argparse.ArgumentParser:
    """Return the argument parser of a command.

    Args:
        doc: docstring of the command's module; its first paragraph is shown.
        rounds: default of ``--rounds``; None for a command without rounds.
        out: default of ``--out``, a folder or a file; None if it depends on other arguments.
        device: whether the command takes ``--device``.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    if device:
        parser.add_argument("--device", default="cpu", help="cpu or cuda")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds ({rounds})")
    parser.add_argument("--out", type=Path, default=out, help="where the results go")
    return parser


def device_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> torch.device:
    """Return the device of a command; exit with an error if it is not available."""
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("`--device cuda` needs a GPU, and torch finds none. Use `--device cpu`.")
    return device


def conditions(packages: tuple[str, ...] = ()) -> dict[str, str | int]:
    """Return processor, thread count and versions, for the header of a data file."""
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


def clock(device: torch.device = CPU) -> Clock:
    """Return a clock that measures the time of a function, including its work on the device."""

    def seconds(function: Callable[[], object]) -> float:
        if device.type != "cuda":
            start = time.perf_counter()
            function()
            return time.perf_counter() - start
        with torch.cuda.device(device):
            torch.cuda.synchronize()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3

    return seconds


def processor_seconds(function: Callable[[], object]) -> float:
    """Return the processor time of this process during a function, in seconds."""
    start = time.process_time()
    function()
    return time.process_time() - start


def in_turns(
    works: Mapping[K, Callable[[], object]],
    rounds: int,
    *,
    seconds: Clock | None = None,
    prepare: Callable[[K], Callable[[], object] | None] | None = None,
    warm_up: int = 0,
    what: str | None = None,
) -> dict[K, list[float]]:
    """Time works in turns, each once per round, so that noise affects all equally.

    The order changes in each round, because a work's time depends on the state of caches and
    threads that the previous work left.

    Args:
        works: the functions to time, by name.
        rounds: number of rounds that count.
        seconds: the clock; that of the CPU by default.
        prepare: called with the name before each turn, untimed; may return a work to time instead.
        warm_up: number of rounds before those that count.
        what: text of a progress bar; None for no bar.

    Returns:
        The times by name, in the order of the rounds.
    """
    seconds = seconds or clock()
    times: dict[K, list[float]] = {name: [] for name in works}
    order = random.Random(0)
    counted = range(warm_up + rounds)
    for index in counted if what is None else track(counted, description=what):
        for name in order.sample(list(works), len(works)):
            work = (prepare and prepare(name)) or works[name]
            taken = seconds(work)
            if index >= warm_up:
                times[name].append(taken)
    return times


def ratios(times: Sequence[float], unit: Sequence[float]) -> list[float]:
    """Return times divided by those of another work in the same round."""
    return [own / one for own, one in zip(times, unit, strict=True)]


def spread(values: Sequence[float], part: int = 5) -> tuple[float, float, float]:
    """Return the median, and the quantiles ``1 / part`` and ``1 - 1 / part``."""
    ordered = sorted(values)
    cut = len(ordered) // part
    return statistics.median(ordered), ordered[cut], ordered[len(ordered) - 1 - cut]


def read_result(file: Path, default: Any) -> Any:
    """Return the contents of a result file, or the default if it does not exist."""
    return json.loads(file.read_text()) if file.exists() else default


def write_result(
    file: Path, data: Mapping[str, Any], packages: tuple[str, ...] = (), *, indent: int | None = 1
) -> None:
    """Write results with the conditions of the measurement.

    Args:
        file: the file to write; its folder is created if it does not exist.
        data: the results; may contain their own conditions.
        packages: packages whose versions are added to the conditions.
        indent: indentation of the JSON.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    head = {} if "conditions" in data else {"conditions": conditions(packages)}
    file.write_text(json.dumps({**head, **data}, indent=indent) + "\n")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def show(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; rows may be shorter than the header."""
    first, *others = heads
    table = Table(Column(first, no_wrap=True), *others, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


@contextmanager
def picture(
    file: Path, size: tuple[float, float], rows: int = 1, columns: int = 1
) -> Iterator[Any]:
    """Yield a figure and its [rows, columns] axes, and write the plot to ``file`` on exit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    yield figure, axes
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def write_over(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> None:
    """Copy a batch into the memory of the old batch, which a device graph reads."""
    with torch.no_grad():
        for target, source in zip(old, new, strict=True):
            target.copy_(source)
