"""Run one cell of a sweep in this process, or in processes started by ``torchrun``."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.cifar10.data import load_images
from benchmarks.cifar10.errors import BenchmarkError, Interrupted
from benchmarks.cifar10.lock import HeldError, held
from benchmarks.cifar10.parallel import Ranks, joined
from benchmarks.cifar10.run import Run, fail
from benchmarks.cifar10.sweep import Sweep


def run_cell(
    sweep: Sweep,
    name: str,
    *,
    data: Path | None,
    stop: Callable[[], bool],
) -> str:
    """Start or resume a cell; return its final state.

    Raises:
        HeldError: if another process runs it.
        Interrupted: if ``stop`` asked to stop, after a checkpoint.
        BenchmarkError: if it cannot run; its status records this.
    """
    config, path = sweep.config(name), sweep.folder(name)
    path.mkdir(parents=True, exist_ok=True)
    with joined(config.device) as ranks, contextlib.ExitStack() as stack:
        _hold(path, ranks, stack)
        try:
            run = Run(config, path, load_images(data), ranks=ranks)
            return run.complete(stop)
        except Interrupted:
            raise
        except (Exception, KeyboardInterrupt) as error:
            # Writing the status may fail too, for example on a full disk. Raise the first error.
            with contextlib.suppress(BenchmarkError, OSError):
                if ranks.is_first:
                    fail(path, error)
            raise


def _hold(path: Path, ranks: Ranks, stack: contextlib.ExitStack) -> None:
    """Lock the cell in the first process, on behalf of all."""
    refusal = None
    if ranks.is_first:
        try:
            stack.enter_context(held(path))
        except HeldError as error:
            refusal = str(error)
    refusal = ranks.agreed(refusal)
    if refusal is not None:
        raise HeldError(refusal)
