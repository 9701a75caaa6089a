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
from compopt.distributed.replicated import Replicated, placement_of
from compopt.distributed.sharded import Sharded

__all__ = [
    "CollectiveError",
    "Placement",
    "Replicated",
    "Sharded",
    "UnwrapWarning",
    "batch_weight",
    "broadcast_parameters",
    "placement_of",
    "unwrap",
    "while_all_have",
]
