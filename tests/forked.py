"""Processes that tests start, forked from one that has imported torch.

A new interpreter would import it for longer than most of these processes work.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext

IMPORTED = ["torch.distributed.checkpoint.state_dict", "compopt"]


def forking() -> ForkServerContext:
    """Return the context of such processes; their server runs nothing, and so may fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context
