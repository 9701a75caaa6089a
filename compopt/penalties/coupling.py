"""Measure whether a term couples the players, from its graph."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compopt._checks import check_count, check_loss, check_params
from compopt._flat import FlatLayout
from compopt._typing import PLAYERS, Player
from compopt.derivatives import Derivatives
from compopt.penalties._random import normal


def mixed_block_norm(
    term: Tensor,
    min_params: Sequence[Tensor],
    max_params: Sequence[Tensor],
    *,
    num_probes: int = 1,
    generator: torch.Generator | None = None,
) -> float:
    """Estimate the Frobenius norm of ``d^2 term / d min d max`` by products with random vectors.

    ``E |D v|^2 = |D|_F^2`` for v from N(0, I). If the graph of the term does not connect the
    players, the result is exactly 0. Otherwise it is positive with probability 1, possibly only by
    round-off if parts of D cancel. A term with result 0 can be passed as
    ``step(loss, max_penalty=term)`` (or ``min_penalty``) instead of in the loss: the step is the
    same and its graphs hold less memory.

    Args:
        term: scalar with its graph. It may depend on only one player.
        min_params: the min player's tensors.
        max_params: the max player's tensors, on the same device.
        num_probes: number of random vectors >= 1; the relative error falls as one over its root.
        generator: generator of the random numbers.

    Returns:
        The estimated norm. Synchronises with the device.

    Raises:
        TypeError, ValueError: if the term is not a scalar with a graph.
        RuntimeError: if an operation of the term has no second derivative; the message gives the
            remedy.

    Cost: a backward pass with its graph and ``num_probes`` mixed products.

    Example:
        >>> x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
        >>> mixed_block_norm((x**2).sum() + (y**2).sum(), [x], [y])
        0.0
        >>> mixed_block_norm((x * y).sum(), [x], [y]) > 0
        True
    """
    check_count("num_probes", num_probes, minimum=1)
    params: dict[Player, list[Tensor]] = {"min": list(min_params), "max": list(max_params)}
    for player in PLAYERS:
        check_params(f"{player}_params", params[player])
    layouts = {player: FlatLayout.of(params[player]) for player in PLAYERS}
    check_loss("term", term, layouts["min"].device)
    with torch.enable_grad():
        grads = torch.autograd.grad(
            term, [*params["min"], *params["max"]], create_graph=True, allow_unused=True
        )
    count = len(params["min"])
    by_player: dict[Player, Sequence[Tensor | None]] = {
        "min": grads[:count],
        "max": grads[count:],
    }
    mixed = Derivatives.of_loss(by_player, params)
    # Draw random vectors in the space of the smaller player.
    source: Player = "min" if layouts["min"].numel <= layouts["max"].numel else "max"
    target: Player = "max" if source == "min" else "min"
    like = torch.empty(0, dtype=layouts[source].dtype, device=layouts[source].device)
    total = 0.0
    for _ in range(num_probes):
        probe = normal((layouts[source].numel,), like, generator)
        total += float(mixed.mixed_product(target, probe).square().sum())
    return float((total / num_probes) ** 0.5)
