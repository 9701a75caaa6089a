"""Coordinates and step sizes of the players: mirror maps, averages of squared gradients."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from compopt._checks import check_decay_rate, check_non_negative
from compopt._typing import K
from compopt.derivatives import Derivatives
from compopt.distributed import Placement
from compopt.kernels import adaptive_setup_, average_squares_
from compopt.optim.commit import Advance, Commit
from compopt.optim.mirrors import (
    Chart,
    Mirror,
    PlayerCharts,
    check_feasible,
    check_mirror,
    make_chart,
)
from compopt.optim.players import ProcessGroup
from compopt.optim.settings import interaction_strength
from compopt.optim.two_phase import TwoPhaseOptimizer
from compopt.optim.update import StepSizes
from compopt.optim.vectors import PlayerVectors

Mirrors: TypeAlias = Mirror | tuple[Mirror, ...]
"""One mirror map, or one for each player."""


class AdaptiveOptimizer(TwoPhaseOptimizer):
    """Base of the optimizers with mirror maps and adaptive step sizes.

    In local coordinates the metric of each group's mirror map is the identity. If all groups are
    Euclidean, local coordinates are the parameters themselves. Step sizes are the group's
    ``interaction`` or else its learning rate; groups with a ``beta`` scale them as in ACGD.
    """

    _beta_is_optional: ClassVar[bool] = False

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._charts = {}
        self._player_charts: dict[Any, PlayerCharts] = {}

    def _defaults_of(self, player: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
        mirror, count = defaults["mirror"], len(self._players)
        # A box is itself a tuple, which begins with its name.
        is_box = isinstance(mirror, tuple | list) and mirror[:1] in (("box",), ["box"])
        if isinstance(mirror, tuple | list) and len(mirror) == count and not is_box:
            mirror = mirror[self._players.index(player)]
        return {**super()._defaults_of(player, defaults), "mirror": mirror}

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        mirror = group["mirror"]
        check_mirror(mirror)
        if mirror == "euclidean":
            return
        if group["weight_decay"]:
            raise ValueError(
                f"`weight_decay` must be 0 with `mirror` {mirror!r}, got "
                f"{group['weight_decay']!r}: decay would leave the set. Add a term to the loss."
            )
        if mirror == "positive-definite" and self.capturable:
            raise ValueError(f"`capturable` forbids `mirror` {mirror!r}, which reads values.")
        _check_whole(mirror, self._placement)
        for entry in group.get("params", ()):
            check_feasible(mirror, entry[1] if isinstance(entry, tuple) else entry)

    def _place(self, process_group: ProcessGroup) -> Placement:
        placement = super()._place(process_group)
        for group in getattr(self, "param_groups", ()):
            if group["mirror"] != "euclidean":
                _check_whole(group["mirror"], placement)
        return placement

    def _to_local_coordinates(self, derivatives: Derivatives[Any]) -> None:
        """Switch gradients and products to the local coordinates of the mirror maps."""
        charts: dict[Tensor, Chart] = {}
        self._charts, self._player_charts = charts, {}
        if all(group["mirror"] == "euclidean" for group in self.param_groups):
            return
        for player, layout in derivatives.layouts.items():
            vectors = self._vectors_of(player)
            made = [
                make_chart(group["mirror"], param.detach().to(layout.dtype))
                for param, group in zip(vectors.params, vectors.group_of, strict=True)
            ]
            self._player_charts[player] = PlayerCharts(layout, made)
            for param, chart in zip(vectors.params, made, strict=True):
                if chart is not None:
                    charts[param] = chart
        derivatives.use_coordinates(self._player_charts)

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        if group["interaction"] is not None:
            check_non_negative("interaction", group["interaction"])
        if "beta" in group and not (self._beta_is_optional and group["beta"] is None):
            check_decay_rate("beta", group["beta"])
        if "eps" in group:
            check_non_negative("eps", group["eps"])

    def _state_keys(self, player: Any) -> tuple[str, ...]:
        groups = [group for group in self.param_groups if group["player"] == player]
        is_adaptive = any(group.get("beta") is not None for group in groups)
        return ("exp_avg_sq",) if is_adaptive else ()

    def _set_up(
        self, derivatives: Derivatives[K], vectors: Mapping[K, PlayerVectors], solved: Collection[K]
    ) -> dict[K, StepSizes]:
        """Return the step sizes of all players; the moves of ``solved`` are solved for."""
        step_sizes = {}
        for player, grad in derivatives.grads.items():
            sign = derivatives.signs[player] if player in solved else None
            step_sizes[player] = sizes = self._step_sizes(vectors[player], grad, sign)
            if self._placement.is_sharded:
                padded = (sizes.values, sizes.root, sizes.scaled_grad)
                self._placement.clear_padding(vectors[player].params, *padded)
        return step_sizes

    def _step_sizes(self, vectors: PlayerVectors, grad: Tensor, sign: int | None) -> StepSizes:
        """Return the step sizes of a player.

        Args:
            vectors: the player's vectors.
            grad: [size of the player] gradient of its own objective. Not modified.
            sign: sign of the right-hand side; None if the player's move is not solved for.
        """
        player, is_solved = vectors.player, sign is not None
        if is_solved not in vectors.work:
            names = ["step_sizes", "scaled_grad", *(["root"] if is_solved else [])]
            vectors.work[is_solved] = [
                self._workspace.vector(vectors.layout, player, name) for name in names
            ]
        values, scaled, *roots = vectors.work[is_solved]
        root = roots[0] if roots else None
        if not vectors.is_adaptive:
            for where, group, _ in vectors.segments:
                values[where].fill_(interaction_strength(group))
            return StepSizes.of(values, grad, sign, root, scaled)
        # The average uses the magnitude, the step the gradient itself.
        charts = self._player_charts
        magnitude = charts[player].magnitude(grad) if charts else grad
        average = vectors.read("exp_avg_sq")
        average = torch.zeros_like(grad) if average is None else average
        has_constant = False
        for where, group, num_steps in vectors.segments:
            beta, rate = group["beta"], interaction_strength(group)
            if beta is None:
                values[where].fill_(rate)
                has_constant = True
                continue
            count = None
            if isinstance(num_steps, Tensor):
                count = num_steps
            else:
                rate = rate * (1 - beta ** (num_steps + 1)) ** 0.5
            own, piece, h, s, out = _at(where, average, magnitude, values, root, scaled)
            adaptive_setup_(own, piece, beta, rate, group["eps"], h, s, out, sign or 1, count)
        if has_constant or magnitude is not grad:
            return StepSizes.of(values, grad, sign, root, scaled, are_adaptive=True)
        return StepSizes(values, root, scaled, are_adaptive=True)

    def _stage_averages(
        self, commit: Commit, vectors: PlayerVectors, grad: Tensor, advance: Advance
    ) -> None:
        """Add the update of the averages of squared gradients to a commit."""
        # Computed again, not kept since `_step_sizes`: a pass costs less than a vector.
        player, charts = vectors.player, self._player_charts
        average = vectors.stage(commit, "exp_avg_sq")
        magnitude = charts[player].magnitude(grad) if charts else grad
        if advance is True:
            for where, group, _ in vectors.segments:
                if (beta := group["beta"]) is not None:
                    own, grad = _at(where, average, magnitude)
                    commit.add(partial(own.mul_, beta), own)
                    commit.add(partial(own.addcmul_, grad, grad, value=1 - beta), own)
            return
        # Use the memory of the step sizes, no longer needed, so that the commit only copies.
        new = self._workspace.vector(vectors.layout, player, "step_sizes")
        new.copy_(average)
        for where, group, _ in vectors.segments:
            if group["beta"] is not None:
                average_squares_(new[where], magnitude[where], group["beta"], advance)
        commit.copy(average, new)


def _at(where: slice, *vectors: Any) -> Sequence[Any]:
    """Return the slices ``where`` of vectors of one size; None stays None."""
    if where.stop - where.start == vectors[0].numel():
        # Skip a slice of everything: it takes as long as an operation.
        return vectors
    return [None if vector is None else vector[where] for vector in vectors]


def _check_whole(mirror: Mirror, placement: Placement) -> None:
    if placement.is_sharded:
        raise ValueError(
            f"`mirror` {mirror!r} needs whole vectors, which Sharded does not keep. Pass the "
            "process group itself, or `compopt.distributed.Replicated(group)`."
        )
