"""How strong ACGD's interaction should be, for the same cost of training.

``python -m benchmarks.strengths`` trains the GANs of ``benchmarks.tolerances`` with the default
solver and an ``interaction`` of several multiples of the learning rate, zero included, and writes
``benchmarks/results/strengths.json``. Each run is written when it is done, so that a command that
was cut off goes on from there.
"""

from collections.abc import Iterator

from benchmarks.harness import RESULTS
from benchmarks.tolerances import LR, Make, Ways, collect, gans

RESULT = RESULTS / "strengths.json"
SEEDS = 3
MULTIPLES = (0, 0.3, 1, 3, 10, 30)
STRENGTHS: Ways = {f"{multiple:g} lr": {"interaction": multiple * LR} for multiple in MULTIPLES}


def runs() -> Iterator[tuple[str, str, Make]]:
    """Yield problem, strength, and what makes its result."""
    yield from gans(STRENGTHS)


if __name__ == "__main__":
    collect(__doc__, RESULT, runs, STRENGTHS, SEEDS)
