"""Competitive steps that several processes share."""

from compopt.distributed.collectives import CollectiveError
from compopt.distributed.data import (
    UnwrapWarning,
    batch_weight,
    broadcast_parameters,
    unwrap,
    while_all_have,
)
from compopt.distributed.placement import Placement
from compopt.distributed.replicated import (
    Replicated,
    UnsharedWarning,
    placement_of,
    warn_if_unshared,
)
from compopt.distributed.sharded import Sharded

__all__ = [
    "CollectiveError",
    "Placement",
    "Replicated",
    "Sharded",
    "UnsharedWarning",
    "UnwrapWarning",
    "batch_weight",
    "broadcast_parameters",
    "placement_of",
    "unwrap",
    "warn_if_unshared",
    "while_all_have",
]
