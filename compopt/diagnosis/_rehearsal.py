"""One forward pass and its derivatives; failures are located in the graph."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import Node

from compopt._checks import check_loss
from compopt._flat import FlatLayout
from compopt._remedies import (
    COMPILED,
    NOT_FINITE,
    NOT_TWICE,
    REACHES_ALL,
    explain,
    independence,
    lost_to_a_compiler,
)
from compopt._typing import OPPONENT, PLAYERS, Player
from compopt.derivatives import Derivatives
from compopt.diagnosis._findings import PreflightError, PreflightReport
from compopt.diagnosis._graph import (
    GraphLabels,
    are_finite,
    cutting_nodes,
    failing_node,
    present,
    spoiling_node,
)
from compopt.diagnosis._players import Players
from compopt.diagnosis._terms import (
    given_terms,
    losses_of,
    mixed_loss,
    mixed_losses,
    own_loss,
    terms_of,
)
from compopt.game import Loss, Terms, as_game

CUT_CHECKPOINT = "None of the inputs have requires_grad=True"
"""What torch says of a re-entrant checkpoint that computes without a graph."""

_Result = TypeVar("_Result")
_Grads: TypeAlias = dict[Player, list[Tensor | None]]
_Search: TypeAlias = Callable[[Iterable[Tensor], Callable[[], object]], Node | None]


class Rehearsal:
    """Takes and checks each derivative of one competitive step.

    Args:
        players: the loss is differentiated with respect to their parameters.
        loss_fn: returns the loss in any form that a step takes. Called once, in the constructor;
            the caller enables gradients.
    """

    def __init__(self, players: Players, loss_fn: Callable[[], Loss]) -> None:
        self.players = players
        self.device = players.device
        self.layouts = {player: FlatLayout.of(players.params[player]) for player in PLAYERS}
        self.labels = GraphLabels({module: players.label(module) for module in players.modules})
        with self.labels.tracking(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                outcome = loss_fn()
            except RuntimeError as error:
                # Only explain autograd errors, which a gradient penalty in the loss can raise.
                # Other errors come from the user's code and are raised unchanged.
                if explain(error) is None:
                    raise
                raise _failure("The loss function", None, error) from error
        self._has_cut_checkpoint = any(CUT_CHECKPOINT in str(one.message) for one in caught)
        for one in caught:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        for name, term in given_terms(outcome):
            if isinstance(term, Tensor) and not term.requires_grad:
                what = "a loss" if name == "loss" else f"`{name}`"
                raise PreflightError(
                    f"`loss_fn` returned {what} without a graph. Compute it with gradients "
                    "enabled, without `backward()`, `detach()` or `item()`."
                )
        self.game = as_game(outcome, Terms(), self.device, allows_pair=True, allows_curvature=True)
        for name, loss in losses_of(self.game).items():
            self._check_finite(name, loss)
            self.labels.extend([loss])

    def report(self) -> PreflightReport:
        """Return the findings.

        Raises:
            PreflightError: at the first failed check.
        """
        grads: dict[str, _Grads] = {}
        seconds_gradient = 0.0
        for name in losses_of(self.game):
            grads[name], seconds = self._gradients(name)
            seconds_gradient += seconds
        without_gradient = self._check_gradients(grads)
        generator = torch.Generator("cpu").manual_seed(0)
        seconds_product: dict[Player, float] = {}
        without_mixed: list[str] = []
        for player in PLAYERS:
            layout = self.layouts[OPPONENT[player]]
            vector = torch.randn(
                layout.numel, dtype=layout.dtype, generator=generator, device="cpu"
            )
            name = mixed_loss(self.game, player)
            mixed = self._mixed(grads[name])
            product, seconds_product[player] = self._product(
                name, mixed, player, vector.to(self.device)
            )
            pieces = zip(
                self.players.names[player], self.layouts[player].views(product), strict=True
            )
            without_mixed += [name for name, piece in pieces if not piece.any()]
        self._check_dependence(grads)
        num_params = sum(len(self.players.params[player]) for player in PLAYERS)
        losses = {name: float(loss.detach()) for name, loss in losses_of(self.game).items()}
        return PreflightReport(
            loss=losses["loss"],
            max_loss=losses.get("max_loss"),
            without_gradient=tuple(without_gradient),
            without_mixed=tuple(without_mixed),
            interacts=len(without_mixed) < num_params,
            seconds_gradient=seconds_gradient,
            seconds_product=seconds_product,
            errors={},
            unmeasured="anything, with `measure=False`",
        )

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest dtype of the terms and the parameters."""
        tensors = [*terms_of(self.game).values()]
        tensors += [param for player in PLAYERS for param in self.players.params[player]]
        return max((tensor.dtype for tensor in tensors), key=lambda d: torch.finfo(d).eps)

    def _check_finite(self, name: str, loss: Tensor) -> None:
        if not are_finite([loss]):
            module = self.labels.first_not_finite()
            first = f"The first module with such an output is {module}. " if module else ""
            raise PreflightError(
                f"{self._called(name)} is {float(loss.detach())}. {first}{NOT_FINITE}"
            )

    def _called(self, name: str) -> str:
        return "The loss" if name == "loss" and self.game.max_loss is None else f"`{name}`"

    def _differentiate(self, name: str) -> _Grads:
        num_min = len(self.players.params["min"])
        grads = torch.autograd.grad(
            losses_of(self.game)[name].reshape(()),
            [param for player in PLAYERS for param in self.players.params[player]],
            create_graph=self._is_mixed(name),
            retain_graph=True,
            allow_unused=True,
        )
        return {"min": list(grads[:num_min]), "max": list(grads[num_min:])}

    def _is_mixed(self, name: str) -> bool:
        # With a curvature loss, second derivatives are taken of it instead of the loss.
        return name in mixed_losses(self.game)

    def _mixed(self, grads: _Grads) -> Derivatives[Player]:
        return Derivatives.of_loss(grads, self.players.params)

    def _gradients(self, name: str) -> tuple[_Grads, float]:
        """Return the gradients of a loss and the elapsed seconds."""
        loss, run = losses_of(self.game)[name], partial(self._differentiate, name)
        what = "The gradient" if name == "loss" else f"The gradient of `{name}`"
        try:
            with cutting_nodes([loss]) as cutting:
                grads, seconds = self._timed(run)
        except RuntimeError as error:
            raise self._located(what, failing_node([loss], run), error) from error
        for node in cutting:
            raise PreflightError(f"{self.labels.of(node)} cannot be used. {NOT_TWICE}")
        if self._is_mixed(name) and lost_to_a_compiler(loss, [*grads["min"], *grads["max"]]):
            raise PreflightError(f"{what} has no graph. {COMPILED}")
        for player in PLAYERS:
            self._check_dense_and_finite(player, grads[player], loss, run)
        return grads, seconds

    def _check_gradients(self, grads: Mapping[str, _Grads]) -> list[str]:
        """Return the names of parameters without a gradient; raise if a player has none."""
        penalties = {"min": self.game.min_penalty, "max": self.game.max_penalty}
        missing = []
        for player in PLAYERS:
            name = own_loss(self.game, player)
            own, penalty = grads[name][player], penalties[player]
            if penalty is not None:
                own = self._with_penalty(player, own, penalty)
            elif not present(own):
                raise PreflightError(
                    f"{self._called(name)} does not depend on {self.players.arguments[player]}: "
                    f"none of its {len(own)} parameters receives a gradient. Do not detach its "
                    "outputs nor compute them under `no_grad` or in a checkpoint with "
                    "`use_reentrant=True`, and pass the parameters that the loss uses."
                )
            named = zip(self.players.names[player], own, strict=True)
            missing += [name for name, grad in named if grad is None]
        if missing and self._has_cut_checkpoint:
            raise PreflightError(f"No gradient reaches {', '.join(missing)}. {REACHES_ALL}")
        return missing

    def _check_dependence(self, grads: Mapping[str, _Grads]) -> None:
        """Raise if a player's own loss does not depend on the other player."""
        if self.game.max_loss is None:
            return
        pairs = [
            (player, OPPONENT[player])
            for player in PLAYERS
            if not present(grads[own_loss(self.game, player)][OPPONENT[player]])
        ]
        if pairs:
            raise PreflightError(independence(pairs))

    def _with_penalty(
        self, player: Player, grads: list[Tensor | None], penalty: Tensor
    ) -> list[Tensor | None]:
        """Return the player's gradients; where the loss has none, those of its penalty."""
        check_loss(f"{player}_penalty", penalty, self.device)
        self.labels.extend([penalty])
        run = partial(
            torch.autograd.grad,
            penalty.reshape(()),
            self.players.params[player],
            retain_graph=True,
            allow_unused=True,
        )
        try:
            penalty_grads = run()
        except RuntimeError as error:
            node = failing_node([penalty], run)
            raise self._located(f"The gradient of `{player}_penalty`", node, error) from error
        self._check_dense_and_finite(player, penalty_grads, penalty, run)
        pairs = zip(grads, penalty_grads, strict=True)
        return [extra if grad is None else grad for grad, extra in pairs]

    def _check_dense_and_finite(
        self,
        player: Player,
        grads: Sequence[Tensor | None],
        term: Tensor,
        run: Callable[[], object],
    ) -> None:
        for name, grad in zip(self.players.names[player], grads, strict=True):
            if grad is None:
                continue
            if grad.layout != torch.strided:
                raise PreflightError(
                    f"The gradient of {name} must be dense, got layout {grad.layout}. "
                    "Use `sparse=False` in embeddings."
                )
            if not are_finite([grad]):
                node = spoiling_node([term], run)
                raise self._located(f"The gradient of {name} is not finite", node)

    def _product(
        self, name: str, mixed: Derivatives[Player], player: Player, vector: Tensor
    ) -> tuple[Tensor, float]:
        """Return the mixed product in ``player``'s space and the elapsed seconds."""
        what = f"The mixed product for {self.players.arguments[player]}"
        try:
            product, seconds = self._timed(partial(mixed.mixed_product, player, vector))
        except RuntimeError as error:
            node = self._search_product(failing_node, name, player, vector)
            raise self._located(what, node, error) from error
        if not are_finite([product]):
            node = self._search_product(spoiling_node, name, player, vector)
            raise self._located(f"{what} is not finite", node)
        return product, seconds

    def _search_product(
        self, search: _Search, name: str, player: Player, vector: Tensor
    ) -> Node | None:
        # Recompute the gradients with tracking, which is slow, to label each node's module.
        with self.labels.tracking():
            grads = self._differentiate(name)
        outputs = present([*grads["min"], *grads["max"]])
        return search(outputs, partial(self._mixed(grads).mixed_product, player, vector))

    def _timed(self, run: Callable[[], _Result]) -> tuple[_Result, float]:
        synchronize = torch.get_device_module(self.device).synchronize
        synchronize()
        start = time.perf_counter()
        result = run()
        synchronize()
        return result, time.perf_counter() - start

    def _located(
        self, what: str, node: Node | None, error: RuntimeError | None = None
    ) -> PreflightError:
        return _failure(what, None if node is None else self.labels.of(node), error)


def _failure(what: str, where: str | None, error: RuntimeError | None) -> PreflightError:
    """Return an error that states the problem, its location, and the remedy.

    Raises:
        RuntimeError: ``error`` itself if it is an out-of-memory error, which is unrelated to
            derivatives.
    """
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if error is None:
        origin = "" if where is None else f" The first such value is in {where}."
        return PreflightError(f"{what}.{origin} {NOT_FINITE}")
    location = "" if where is None else f" in {where}"
    remedy = explain(error)
    advice = "" if remedy is None else f" {remedy}"
    # Errors of mixed products already contain the remedy; report autograd's error, their cause.
    reported = error if remedy is None else error.__cause__ or error
    return PreflightError(f"{what} failed{location}.{advice} torch reports: {reported}")
