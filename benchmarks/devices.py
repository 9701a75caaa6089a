"""Where a benchmark runs, and how time and memory are measured there."""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.workloads import Play

Clock = Callable[[Callable[[], object]], float]
"""Returns how many seconds a function takes."""


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` to a command."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def device_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> torch.device:
    """Return the device that a command is to run on; end the command if there is none."""
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("`--device cuda` needs a GPU, and torch finds none. Use `--device cpu`.")
    return device


def on_device(play: Play, device: torch.device) -> Play:
    """Return the game with players and batches on ``device``."""
    play.min_player.to(device)
    play.max_player.to(device)
    return replace(play, draw=lambda random: tuple(part.to(device) for part in play.draw(random)))


def clock(device: torch.device) -> Clock:
    """Return what measures how long a function takes, its work on the device included."""

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


def write_over(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> None:
    """Copy a batch into the memory of another one, which a device graph reads."""
    with torch.no_grad():
        for target, source in zip(old, new, strict=True):
            target.copy_(source)
