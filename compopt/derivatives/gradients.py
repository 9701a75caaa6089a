"""The gradients of a game."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from compopt._checks import check_loss, check_penalty, check_takes_part
from compopt._flat import FlatLayout, Workspace, split_players
from compopt._profiling import Range, profiled
from compopt._remedies import COMPILED, COMPILER, SPARSE, lost_to_a_compiler
from compopt._typing import K
from compopt.derivatives.autograd import Grads, differentiate_once
from compopt.derivatives.products import HERE, Derivatives
from compopt.distributed.placement import Pass, Placement
from compopt.game import AnyGame, Objective


def differentiate(
    game: AnyGame[K],
    params: Mapping[K, Sequence[Tensor]],
    *,
    placement: Placement = HERE,
    scale: float = 1.0,
    second_order: bool = True,
    workspace: Workspace | None = None,
    layouts: Mapping[K, FlatLayout] | None = None,
) -> Derivatives[K]:
    """Compute the first derivatives of a game and keep the graphs for products.

    Args:
        game: losses and penalties, with graphs.
        params: each player's tensors, on the losses' device. ``.grad`` is not changed.
        placement: placement of the vectors.
        scale: factor that all terms were multiplied by to prevent underflow. The gradients include
            it; products are divided by it.
        second_order: whether to keep the graphs; without them all products are zero.
        workspace: provides the gradient vectors; new ones if None.
        layouts: layouts of the players' vectors, if already known.

    Raises:
        TypeError, ValueError: if a term is not a scalar with a graph on the players' device, if a
            player takes no part, or if a gradient is sparse.

    Cost: one backward pass for each loss (for all players' parameters if the graphs are kept), one
    for each penalty, and one for ``curvature_loss``.
    """
    with profiled(Range.GRADIENTS):
        return _differentiate(game, params, placement, scale, second_order, workspace, layouts)


def _differentiate(
    game: AnyGame[K],
    params: Mapping[K, Sequence[Tensor]],
    placement: Placement,
    scale: float,
    second_order: bool,
    workspace: Workspace | None,
    layouts: Mapping[K, FlatLayout] | None,
) -> Derivatives[K]:
    objectives, penalties, curvature_loss = game.objectives(), game.penalties(), game.curvature_loss
    added = {
        # Retain the graph: a penalty may share nodes with a loss.
        player: loss_gradients(f"{player}_penalty", term, params[player], retain_graph=True)
        for player, term in penalties.items()
    }
    for player, found_by in added.items():
        check_penalty(player, found_by)
    if layouts is None:
        layouts = {player: placement.layout(tensors) for player, tensors in params.items()}
    grads: dict[K, Tensor] = {}
    first: dict[K, Mapping[K, Grads]] = {}
    losses = []
    without: dict[K, tuple[int, ...]] = {}
    for objective in objectives:
        owners = tuple(objective.signs)
        by_owners = {player: params[player] for player in owners}
        found: dict[K, Grads] = {}
        derive = partial(
            _by_player,
            objective,
            params if second_order else by_owners,
            owners,
            found,
            create_graph=second_order and curvature_loss is None,
            retain_graph=second_order or objective is not objectives[-1],
        )
        own = [param for tensors in by_owners.values() for param in tensors]
        value = objective.loss.detach()
        own_layouts = {player: layouts[player] for player in owners}
        message = placement.message([*own_layouts.values()], [value])
        gathered = _vector(workspace, message, owners)
        placement.gather(
            Pass(derive, own, message, "the gradients"),
            gathered,
            added=_signed(objective, by_owners, added),
            scalars=[value],
        )
        for player in owners:
            without[player] = check_takes_part(player, found[player], penalties.get(player))
        split = split_players(gathered, own_layouts)
        for player, sign in objective.signs.items():
            grad = split[player] if sign == 1 else split[player].neg_()
            grads[player] = grad.to(layouts[player].dtype)
            first[player] = found
        if len(message.shapes) > len(own):
            # Copy the mean loss: it follows the gradients in memory that the next step overwrites.
            value = gathered[-1:].reshape(value.shape).to(value.dtype, copy=True)
        losses.append(value)
    if curvature_loss is not None and second_order:
        found = {}
        curvature = Objective("curvature_loss", curvature_loss, objectives[0].signs)
        _by_player(curvature, params, (), found, create_graph=True)
        first = dict.fromkeys(params, found)
    signs = {player: sign for each in objectives for player, sign in each.signs.items()}
    derivatives = Derivatives(
        {player: grads[player] for player in params},
        losses,
        first,
        signs,
        params,
        placement,
        scale,
        layouts,
    )
    if not placement.is_shared:
        # Not when shared: another process's part of the batch may depend on these parameters.
        derivatives.without_gradient = without
    return derivatives


def _by_player(
    objective: Objective[K],
    params: Mapping[K, Sequence[Tensor]],
    owners: Sequence[K],
    found: dict[K, Grads],
    **options: bool,
) -> Grads:
    """Put the derivatives by all ``params`` into ``found``; return those by the owners' ones."""
    everything = [param for tensors in params.values() for param in tensors]
    grads = loss_gradients(objective.name, objective.loss, everything, **options)
    start = 0
    for player, tensors in params.items():
        found[player] = grads[start : start + len(tensors)]
        start += len(tensors)
    return [grad for player in owners for grad in found[player]]


def _vector(workspace: Workspace | None, layout: FlatLayout, name: Sequence[K]) -> Tensor:
    if workspace is None:
        return layout.new_vector()
    return workspace.vector(layout, "grad", *name)


def _signed(
    objective: Objective[K],
    params: Mapping[K, Sequence[Tensor]],
    penalties: Mapping[K, Grads],
) -> Grads | None:
    """Return the penalties' gradients times the owners' signs, None if there are no penalties.

    They are added to the gradient of the loss, and the sum is multiplied by the sign later.
    """
    if penalties.keys().isdisjoint(params):
        return None
    tensors: list[Tensor | None] = []
    for player, sign in objective.signs.items():
        grads = penalties.get(player, [None] * len(params[player]))
        tensors += grads if sign == 1 else [None if grad is None else -grad for grad in grads]
    return tensors


def loss_gradients(name: str, loss: Tensor, params: Sequence[Tensor], **options: bool) -> Grads:
    """Return the gradients of a loss, None for a parameter that it does not depend on.

    Args:
        name: name of the loss, for messages.
        loss: scalar with a graph.
        params: tensors to differentiate by.
        options: ``retain_graph`` and ``create_graph``.

    Raises:
        TypeError, ValueError: if ``loss`` is not a scalar with a graph on the device of ``params``,
            or if a gradient is sparse.
        RuntimeError: if ``create_graph`` is set and a gradient of a compiled network has no graph.
    """
    check_loss(name, loss, params[0].device)
    grads = differentiate_once(
        f"The gradient of `{name}`", [loss], params, [torch.ones_like(loss)], **options
    )
    for grad in grads:
        if grad is not None and grad.layout != torch.strided:
            raise ValueError(f"Gradients must be dense, got layout {grad.layout}. {SPARSE}")
    is_to_go_on = COMPILER in sys.modules and options.get("create_graph")
    if is_to_go_on and lost_to_a_compiler(loss, grads):
        raise RuntimeError(f"The gradient of `{name}` has no graph. {COMPILED}")
    return grads
