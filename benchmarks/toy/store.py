"""Results that outlive an interrupted run."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.progress import track

from compopt._files import replacing


class Store:
    """A data file of cells: what is in it is not run again.

    Args:
        path: of the JSON file, rewritten after each cell.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def fill(self, title: str, cells: Iterable[tuple[str, Callable[[], Any]]]) -> dict[str, Any]:
        """Run the cells that are missing; return those asked for, by key."""
        wanted = dict(cells)
        missing = [key for key in wanted if key not in self.cells]
        for key in track(missing, title):
            self.cells[key] = wanted[key]()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as file:
                file.write((json.dumps(self.cells, indent=1, sort_keys=True) + "\n").encode())
        return {key: self.cells[key] for key in wanted}
