"""Count the functions and files that a step calls, for each kind of game.

Run ``python -m benchmarks.walk``; ``--files`` lists the files in the order in which they are
entered. Traces one small step with one solver iteration, after three others. Counts the functions
of the package, their files, and the calls and returns that change the file.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import compopt
from compopt import ACGD, GMRES, ConjugateGradient, PolymatrixCGD

PACKAGE = Path(compopt.__file__).parent
ROOT = PACKAGE.parent
ONE = ConjugateGradient(rtol=0.0, max_iter=1)
ONE_UNSYMMETRIC = GMRES(rtol=0.0, max_iter=1)


@dataclass
class Walk:
    """Functions and files that a step called.

    Attributes:
        functions: called functions of the package, by file and name.
        files: files in the order in which they were entered.
        num_changes: number of calls and returns that change the file.
    """

    functions: set[tuple[str, str]] = field(default_factory=set)
    files: dict[str, None] = field(default_factory=dict)
    num_changes: int = 0
    _last: str | None = None

    def follow(self, step: Callable[[], object]) -> None:
        """Take a step and record its calls."""
        sys.setprofile(self._note)
        try:
            step()
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        seen: FrameType | None = frame if event == "call" else frame.f_back
        # A generated function, such as that of a dataclass, has no file.
        name = None if seen is None else _file(seen)
        if name is None:
            return
        if event == "call":
            self.functions.add((name, frame.f_code.co_qualname if _HAS_QUALNAME else _name(frame)))
            self.files.setdefault(name)
        self.num_changes += self._last is not None and name != self._last
        self._last = name


_HAS_QUALNAME = sys.version_info >= (3, 11)


def _name(frame: FrameType) -> str:
    return f"{frame.f_code.co_name}:{frame.f_code.co_firstlineno}"


def _file(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    if not path.is_absolute() or not path.is_relative_to(ROOT):
        return None
    path = path.resolve()
    for folder in (PACKAGE, ROOT / "kernels"):
        if path.is_relative_to(folder.resolve()):
            return str(path.relative_to(ROOT.resolve()))
    return None


def _params(*sizes: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=random).requires_grad_() for size in sizes]


def _zero_sum(**options: Any) -> Callable[[], object]:
    x, y = _params(3, 4)
    optimizer = ACGD([x], [y], lr=1e-2, solver=ONE, **options)
    return lambda: optimizer.step((x.sum() * y).sin().sum())


def _pair() -> Callable[[], object]:
    x, y = _params(3, 4)
    optimizer = ACGD([x], [y], lr=1e-2, solver=ONE_UNSYMMETRIC)

    def step() -> object:
        loss = (x.sum() * y).sin().sum()
        return optimizer.step((loss, -2 * loss))

    return step


def _many() -> Callable[[], object]:
    players = _params(3, 4, 2)
    optimizer = PolymatrixCGD([[p] for p in players], lr=1e-2, beta=0.99, solver=ONE_UNSYMMETRIC)

    def step() -> object:
        x, y, z = players
        loss = (x.sum() * y).sin().sum() * z.sum()
        return optimizer.step([loss, -loss, loss + z.square().sum()])

    return step


def _shared() -> Callable[[], object]:
    from torch import distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    return _zero_sum(process_group=dist.group.WORLD)


GAMES: dict[str, Callable[[], Callable[[], object]]] = {
    "zero-sum": _zero_sum,
    "general-sum": _pair,
    "three players": _many,
    "a mirror map": lambda: _zero_sum(mirror=("box", -9.0, 9.0)),
    "a process group": _shared,
}


def walk(name: str) -> Walk:
    """Return the functions and files that a step of one of :data:`GAMES` calls."""
    step = GAMES[name]()
    for _ in range(3):
        step()
    found = Walk()
    found.follow(step)
    return found


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", action="store_true", help="list the files of each walk")
    options = parser.parse_args(words)
    table = Table("game", "functions", "files", "changes of file")
    walks = {name: walk(name) for name in GAMES}
    for name, found in walks.items():
        numbers = len(found.functions), len(found.files), found.num_changes
        table.add_row(name, *map(str, numbers))
    Console().print(table)
    if options.files:
        for name, found in walks.items():
            Console().print(f"{name}: {', '.join(found.files)}", highlight=False)


if __name__ == "__main__":
    main()
