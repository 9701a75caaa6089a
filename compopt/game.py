"""From a loss to the players' gradients and the mixed second derivatives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from compopt._checks import check_loss, check_takes_part, check_vector
from compopt._flat import FlatLayout
from compopt._profiling import Range, marked
from compopt._remedies import COMPILED, SPARSE, explain, lost_to_a_compiler
from compopt._typing import PLAYERS, Player, opponent
from compopt.kernels import gather, partial_dot, scatter


@dataclass(frozen=True)
class Game:
    """A loss, or a loss for each player, with further terms.

    Attributes:
        loss: scalar; the min player lowers it, the max player raises it.
        min_penalty: scalar that the min player also minimises, or None.
        max_penalty: scalar that the max player also *minimises*, or None.
        max_loss: None in a zero-sum game. In a general-sum game the scalar that the max player
            *minimises*, and ``loss`` is the min player's alone.
        curvature_loss: None, or a loss whose mixed second derivatives stand for those of ``loss``,
            such as that of a part of the batch.

    The penalties are differentiated once and never enter the mixed second derivatives, so a term
    that itself contains gradients (a gradient penalty) costs no third derivative. A term that
    couples the players belongs in ``loss``.
    """

    loss: Tensor
    min_penalty: Tensor | None = None
    max_penalty: Tensor | None = None
    max_loss: Tensor | None = None
    curvature_loss: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Game":
        """Return the game with ``function`` applied to each of its terms."""
        others = (self.min_penalty, self.max_penalty, self.max_loss, self.curvature_loss)
        return Game(function(self.loss), *(p if p is None else function(p) for p in others))

    def terms(self) -> dict[str, Tensor | None]:
        """Return the losses and penalties by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def graph_options(self, second_order: bool) -> dict[str, bool]:
        """Return how the loss is differentiated, so that its graph or both are there for more."""
        # Graphs are retained because terms may share nodes.
        return {"create_graph": second_order and self.curvature_loss is None, "retain_graph": True}

    def detached_loss(self) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss, or the pair (min, max) of losses, without graphs."""
        if self.max_loss is None:
            return self.loss.detach()
        return self.loss.detach(), self.max_loss.detach()


def differentiate_once(
    what: str, outputs: Tensor | Sequence[Tensor], inputs: Sequence[Tensor], **options: Any
) -> tuple[Tensor | None, ...]:
    """Differentiate, with None for unused inputs; known failures come with their remedy."""
    try:
        return torch.autograd.grad(outputs, list(inputs), allow_unused=True, **options)
    except RuntimeError as error:
        remedy = explain(error)
        if remedy is None:
            raise
        raise RuntimeError(f"{what} failed. {remedy} Autograd said: {error}") from error


def loss_gradients(
    name: str, loss: Tensor, params: Sequence[Tensor], **options: Any
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a loss, None where it does not depend on a parameter.

    Args:
        name: of the loss, for messages.
        loss: scalar with a graph.
        params: the tensors to differentiate by.
        options: of ``torch.autograd.grad``.

    Raises:
        TypeError, ValueError: if ``loss`` is not a scalar with a graph on the device of ``params``,
            or if a gradient is sparse.
        RuntimeError: if a gradient that is to be differentiated comes from a compiled network.
    """
    check_loss(name, loss, params[0].device)
    with torch.enable_grad():
        grads = differentiate_once(f"The gradient of `{name}`", loss, params, **options)
    for grad in grads:
        if grad is not None and grad.layout != torch.strided:
            raise ValueError(f"Gradients must be dense, got layout {grad.layout}. {SPARSE}")
    if options.get("create_graph") and lost_to_a_compiler(loss, grads):
        raise RuntimeError(f"The gradient of `{name}` has no graph. {COMPILED}")
    return grads


def curvature_gradients(
    game: Game, params: Sequence[Tensor], grads: Sequence[Tensor | None], second_order: bool
) -> Sequence[Tensor | None]:
    """Return the gradients that products differentiate: ``grads``, or another loss's."""
    if game.curvature_loss is None or not second_order:
        return grads
    return loss_gradients("curvature_loss", game.curvature_loss, params, create_graph=True)


def add_penalty(
    name: str, penalty: Tensor, params: Sequence[Tensor], layout: FlatLayout, flat: Tensor
) -> None:
    """Add the gradient of ``penalty`` to ``flat`` [layout.numel]."""
    # The graph is retained because a penalty may share nodes with the loss.
    grads = loss_gradients(name, penalty, params, retain_graph=True)
    flat.add_(layout.flatten(grads))


class MixedHessian:
    """The mixed block of the loss's Hessian, known through products with vectors.

    For a loss f of the min player's x and the max player's y, :meth:`hvp` gives
    ``D_xy f @ v`` (result in x) and ``D_yx f @ u`` (result in y) by differentiating the
    first-order gradients a second time. The graph is held by this object alone.

    Attributes:
        num_products: products made so far.
    """

    def __init__(
        self,
        grads: Mapping[Player, Sequence[Tensor | None]],
        params: Mapping[Player, Sequence[Tensor]],
        layouts: Mapping[Player, FlatLayout],
        scale: float = 1.0,
    ) -> None:
        self._params = params
        self._layouts = layouts
        self._scale = scale
        self.num_products = 0
        # A gradient without a graph (of a linear critic's bias, say) is constant: its mixed
        # derivative is zero.
        self._outputs = {
            player: [
                (index, grad)
                for index, grad in enumerate(grads[player])
                if grad is not None and grad.requires_grad
            ]
            for player in PLAYERS
        }

    def size(self, player: Player) -> int:
        """Return the number of entries of ``player``'s parameters."""
        return self._layouts[player].numel

    def layout(self, player: Player) -> FlatLayout:
        """Return the flat layout of ``player``'s parameters."""
        return self._layouts[player]

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes that share the products act alike."""
        return flags

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors from numbers about the part that this process keeps."""
        return partials

    def hvp(
        self,
        player: Player,
        vector: Tensor,
        out: Tensor | None = None,
        scale: Tensor | None = None,
        weight: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Tensor:
        """Return the mixed Hessian-vector product that lies in ``player``'s space.

        ``hvp("min", v)`` is ``D_xy f @ v``; ``hvp("max", u)`` is ``D_yx f @ u``.

        Args:
            player: whose space the result is in.
            vector: [size of the opponent]. Not modified.
            out: [size of ``player``] where to write, a new vector if None.
            scale: [size of ``player``] multiplies the result.
            weight: [size of the opponent] multiplies the vector before.
            room: [size of the opponent] where the weighted vector may be written.

        Returns:
            The product [size of ``player``]. Parameters without a mixed derivative give zeros.

        Cost: one backward pass through the graph of the opponent's gradients.
        """
        products = self._differentiate(player, vector, weight, room)
        product = self._layouts[player].flatten(products, out, scale)
        return product if self._scale == 1.0 else product.div_(self._scale)

    def hvp_plus(
        self, player: Player, vector: Tensor, base: Tensor, out: Tensor, scale: Tensor
    ) -> Tensor:
        """Write ``base + scale * hvp(player, vector)`` to ``out``, in one pass.

        Args:
            player: whose space the result is in.
            vector: [size of the opponent]. Not modified.
            base: [size of ``player``]. Not modified.
            out: [size of ``player``] where to write.
            scale: [size of ``player``].

        Returns:
            Numbers [k >= 1] whose sum is the inner product of ``base`` and ``out``.
        """
        if self._scale != 1.0:
            self.hvp(player, vector, out, scale).add_(base)
            return partial_dot(base, out)
        products = self._differentiate(player, vector)
        partials = gather(products, self._layouts[player].sizes, out, scale, base)
        assert partials is not None
        return partials

    def _weights(
        self, source: Player, vector: Tensor, weight: Tensor | None, room: Tensor | None
    ) -> list[Tensor]:
        """Return ``weight * vector`` as tensors like the parameters of ``source``."""
        dtypes = [param.dtype for param in self._params[source]]
        return scatter(vector, self._layouts[source].shapes, dtypes, weight, room)

    @marked(Range.PRODUCT)
    def _differentiate(
        self,
        player: Player,
        vector: Tensor,
        weight: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Sequence[Tensor | None]:
        """Return the product as a list of tensors, before it is scaled."""
        source = opponent(player)
        check_vector("vector", vector, self.size(source))
        self.num_products += 1
        outputs = self._outputs[source]
        # Processes gather the weights together, also where one has nothing to differentiate.
        weights = self._weights(source, vector, weight, room)
        if not outputs:
            return [None] * len(self._params[player])
        return differentiate_once(
            "A mixed second derivative",
            [grad for _, grad in outputs],
            self._params[player],
            grad_outputs=[weights[index].to(grad.dtype) for index, grad in outputs],
            retain_graph=True,
        )


@dataclass(frozen=True)
class GameGradients:
    """First derivatives of a game, and the means to form mixed second ones.

    Each player's gradient is that of *its own* objective: the max player's own objective is the
    negative loss, so moving against its entry raises the loss.

    Attributes:
        loss: the detached loss.
        grad_min: [size of the min player] ``grad_x f`` plus the gradient of its penalty.
        grad_max: [size of the max player] ``-grad_y f`` plus the gradient of its penalty.
        mixed: products with the mixed block of f.
        without_gradient: per player, the places of the parameters on which f does not depend. Empty
            where processes share f: another one's part may depend on them.
    """

    loss: Tensor
    grad_min: Tensor
    grad_max: Tensor
    mixed: MixedHessian
    without_gradient: Mapping[Player, tuple[int, ...]] = field(default_factory=dict)

    def losses(self) -> Tensor:
        """Return what a step returns: the loss."""
        return self.loss


@marked(Range.GRADIENTS)
def differentiate(
    game: Game,
    min_params: Sequence[Tensor],
    max_params: Sequence[Tensor],
    *,
    scale: float = 1.0,
    second_order: bool = True,
    out: Mapping[Player, Tensor] | None = None,
) -> GameGradients:
    """Differentiate a zero-sum game once, keeping the graph for mixed products.

    Args:
        game: the loss and the penalties, with graphs.
        min_params: the min player's tensors, on the loss's device. ``.grad`` is left alone.
        max_params: the max player's tensors.
        scale: factor by which all terms of ``game`` were multiplied against underflow. The
            gradients keep it; the mixed products are divided by it.
        second_order: whether to keep that graph; without it all mixed products are zero.
        out: per player, [size of the player] where to write the gradients; new vectors if None.

    Returns:
        The gradients. They hold the only references to the second-order graph that this function
        makes: it is freed with them.

    Raises:
        TypeError, ValueError: if a term is not a scalar with a graph on the players' device, if a
            player takes no part, or if a gradient is sparse.

    Cost: one backward pass of the loss for both players, one for each penalty, one of
    ``curvature_loss``.
    """
    params: dict[Player, Sequence[Tensor]] = {"min": min_params, "max": max_params}
    layouts = {player: FlatLayout.of(params[player]) for player in PLAYERS}
    both, middle = [*min_params, *max_params], len(min_params)
    grads = loss_gradients("loss", game.loss, both, **game.graph_options(second_order))
    curvature = curvature_gradients(game, both, grads, second_order)
    by_player: dict[Player, Sequence[Tensor | None]] = {
        "min": grads[:middle],
        "max": grads[middle:],
    }
    flat = {
        player: layouts[player].flatten(by_player[player], None if out is None else out[player])
        for player in PLAYERS
    }
    flat["max"].neg_()
    penalties: dict[Player, Tensor | None] = {"min": game.min_penalty, "max": game.max_penalty}
    without: dict[Player, tuple[int, ...]] = {}
    for player, penalty in penalties.items():
        without[player] = check_takes_part(player, by_player[player], penalty)
        if penalty is not None:
            add_penalty(f"{player}_penalty", penalty, params[player], layouts[player], flat[player])
    return GameGradients(
        loss=game.loss.detach(),
        grad_min=flat["min"],
        grad_max=flat["max"],
        mixed=MixedHessian(
            {"min": curvature[:middle], "max": curvature[middle:]}, params, layouts, scale
        ),
        without_gradient=without,
    )
