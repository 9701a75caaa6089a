"""TensorBoard logs, for those who want them."""

from pathlib import Path
from typing import Any

from benchmarks.cifar10.errors import BenchmarkError


class Scalars:
    """Writes numbers for TensorBoard, or nothing.

    Args:
        folder: of the run; the logs lie in its ``tensorboard``.
        step: from which the run goes on; later entries of an interrupted run are hidden.
        enabled: whether to write.
    """

    def __init__(self, folder: Path, step: int, enabled: bool) -> None:
        self._writer: Any = None
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BenchmarkError(
                "TensorBoard logs were asked for, but the package `tensorboard` cannot be "
                'imported. Install it, e.g. with `pip install -e ".[benchmarks]"`.'
            ) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, row: dict[str, Any], group: str = "training") -> None:
        """Write the numbers of a row at its step."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(f"{group}/{name}", value, row["step"])

    def close(self) -> None:
        """Flush what is left."""
        if self._writer is not None:
            self._writer.close()
