"""Other optimizers of two players, with the interface of CGD."""

from compopt.optim.rivals.adam import ExtraAdam, OptimisticAdam
from compopt.optim.rivals.adjusted import SGA, ConsensusOptimization
from compopt.optim.rivals.alternating import AlternatingDescentAscent
from compopt.optim.rivals.averaging import averaged
from compopt.optim.rivals.descent_ascent import SimultaneousDescentAscent
from compopt.optim.rivals.extragradient import ExtraGradient, PastExtraGradient
from compopt.optim.rivals.lead import LEAD
from compopt.optim.rivals.lookahead import LCGD, LOLA
from compopt.optim.rivals.optimistic import OGDA
from compopt.optim.rivals.slow_weights import LookaheadMinmax

__all__ = [
    "LCGD",
    "LEAD",
    "LOLA",
    "OGDA",
    "SGA",
    "AlternatingDescentAscent",
    "ConsensusOptimization",
    "ExtraAdam",
    "ExtraGradient",
    "LookaheadMinmax",
    "OptimisticAdam",
    "PastExtraGradient",
    "SimultaneousDescentAscent",
    "averaged",
]
