"""Interruptions of a step, at any torch operation or line of the package."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import compopt

PACKAGE = str(Path(compopt.__file__).parent)


class Interrupted(BaseException):
    """As Ctrl-C does, it passes by whoever catches errors only."""


class Operations(TorchDispatchMode):
    """Counts torch operations, and raises in place of the one numbered ``at``, from 1."""

    def __init__(self, at: int = 0) -> None:
        super().__init__()
        self.at = at
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count == self.at:
            raise Interrupted
        return func(*args, **(kwargs or {}))


class Lines:
    """Counts the lines of the package that run, and raises at the one numbered ``at``."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.count = 0

    def __enter__(self) -> "Lines":
        self._before = sys.gettrace()
        sys.settrace(self._enter_function)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter_function(self, frame: FrameType, event: str, _: object) -> Any:
        return self._at_line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _at_line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            self.count += 1
            if self.count == self.at:
                raise Interrupted
        return self._at_line
