"""The optimizers of the experiments, and what their steps cost."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from compopt import ACGD, CGD
from compopt.optim import rivals

Make = Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True)
class Method:
    """An optimizer under a short name.

    Attributes:
        name: on plots.
        make: builds it from ``(min_params, max_params, lr=...)``.
        passes: forward-pass equivalents of a step, by the paper's count: a gradient costs two
            forward passes, a product with second derivatives as well; for CGD without its
            iterations, which cost two each.
    """

    name: str
    make: Make
    passes: int

    def cost(self, optimizer: torch.optim.Optimizer) -> int:
        """Return the forward-pass equivalents of the step just taken."""
        report = getattr(optimizer, "last_step", None)
        return self.passes if report is None else self.passes + 2 * int(report.num_iter)


def _lookahead(*players: object, lr: float) -> torch.optim.Optimizer:
    optimizer = rivals.SimultaneousDescentAscent(*players, lr=lr)
    rivals.LookaheadMinmax(optimizer)
    return optimizer


def _by(optimizer: Make, **options: object) -> Make:
    return partial(rivals.SimultaneousDescentAscent, optimizer=partial(optimizer, **options))


CONSTANT = (
    Method("CGD", CGD, 4),
    Method("GDA", rivals.SimultaneousDescentAscent, 2),
    Method("LCGD", rivals.LCGD, 4),
    Method("SGA", rivals.SGA, 4),
    Method("ConOpt", rivals.ConsensusOptimization, 6),
    Method("OGDA", rivals.OGDA, 2),
    Method("ExtraGradient", rivals.ExtraGradient, 4),
    Method("LEAD", rivals.LEAD, 4),
)
"""Those with a constant step size, which the paper's statements are about."""

ALTERNATING = Method("alternating GDA", rivals.AlternatingDescentAscent, 4)
LOOKAHEAD = Method("Lookahead-minmax", _lookahead, 2)
ADAPTIVE = (
    Method("ACGD", ACGD, 4),
    Method("Adam", _by(torch.optim.Adam), 2),
    Method("ExtraAdam", rivals.ExtraAdam, 4),
    Method("OptimisticAdam", rivals.OptimisticAdam, 2),
)

SCALAR = (
    *CONSTANT,
    ALTERNATING,
    Method("past extragradient", rivals.PastExtraGradient, 2),
    Method("LOLA", rivals.LOLA, 4),
    Method("SGA, aligned", partial(rivals.SGA, align=True), 6),
    LOOKAHEAD,
    Method("CGD in a box", partial(CGD, mirror=("box", -1.0, 1.0)), 4),
    *ADAPTIVE,
)

OTHERS = (ALTERNATING, LOOKAHEAD, *ADAPTIVE)
"""In addition to CONSTANT, for covariance estimation.

Without those that take the steps of one that is there, as the game is zero-sum: LOLA is LCGD, and
past extragradient looks ahead to the iterates of OGDA.
"""

LARGER = tuple(m for m in CONSTANT if m.name in ("CGD", "SGA", "ConOpt", "OGDA"))
"""The paper's own, for the larger covariances."""

MIXTURE = (
    Method("ACGD", partial(ACGD, beta=0.9), 4),
    Method("RMSProp GDA", _by(torch.optim.RMSprop, alpha=0.9), 2),
    Method("OGDA with RMSProp", partial(rivals.OptimisticAdam, betas=(0.0, 0.9)), 2),
    Method("ExtraAdam", partial(rivals.ExtraAdam, betas=(0.0, 0.9)), 4),
    Method("SGA", rivals.SGA, 4),
    Method("ConOpt", rivals.ConsensusOptimization, 6),
)
"""As in the paper with RMSProp where a form with it exists; SGA and ConOpt have none here."""
