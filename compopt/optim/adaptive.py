"""Step sizes of the players: constant, or from averages of squared gradients."""

from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from compopt._checks import check_decay_rate, check_non_negative
from compopt._profiling import Range, marked
from compopt.kernels import adaptive_setup_, average_squares_
from compopt.optim.commit import Advance, Commit
from compopt.optim.groups import interaction_strength
from compopt.optim.mirrored import MirroredOptimizer
from compopt.optim.step_sizes import StepSizes


class AdaptiveOptimizer(MirroredOptimizer):
    """Gives each player its step sizes.

    They are the learning rate of the group, and in groups with a ``beta`` that of ACGD.
    """

    _beta_is_optional: ClassVar[bool] = False

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        if group["interaction"] is not None:
            check_non_negative("interaction", group["interaction"])
        if "beta" in group and not (self._beta_is_optional and group["beta"] is None):
            check_decay_rate("beta", group["beta"])
        if "eps" in group:
            check_non_negative("eps", group["eps"])

    def _is_adaptive(self, player: Any) -> bool:
        """Return whether the player keeps an average of squared gradients."""
        groups = [group for group in self.param_groups if group["player"] == player]
        return any(group.get("beta") is not None for group in groups)

    def _state_keys(self, player: Any) -> tuple[str, ...]:
        return ("exp_avg_sq",) if self._is_adaptive(player) else ()

    @marked(Range.SET_UP)
    def _step_sizes(self, player: Any, grad: Tensor, sign: int | None) -> StepSizes:
        """Return the step sizes of ``player``.

        Args:
            player: whose they are.
            grad: [size of the player] of its own objective. Not modified.
            sign: that the right-hand side has, None if the player's move is not solved for.
        """
        values, weighed = (self._buffer(player, name) for name in ("step_sizes", "weighed_grad"))
        root = None if sign is None else self._buffer(player, "root")
        if not self._is_adaptive(player):
            for where, group, _ in self._segments(player):
                values[where].fill_(interaction_strength(group))
            return StepSizes.weighing(values, grad, sign, root, weighed)
        # The average is of the magnitude, the step along the gradient.
        magnitude = self._magnitude(player, grad)
        average = self._read_state(player, "exp_avg_sq")
        average = torch.zeros_like(grad) if average is None else average
        has_constant = False
        for where, group, num_steps in self._segments(player):
            beta, rate = group["beta"], interaction_strength(group)
            if beta is None:
                values[where].fill_(rate)
                has_constant = True
                continue
            if not isinstance(num_steps, Tensor):
                rate = rate * (1 - beta ** (num_steps + 1)) ** 0.5
            # A slice of everything takes as long as an operation.
            covers = where.stop - where.start == len(grad)
            at = (lambda vector: vector) if covers else itemgetter(where)
            adaptive_setup_(
                at(average),
                at(magnitude),
                beta,
                rate,
                group["eps"],
                at(values),
                None if root is None else at(root),
                at(weighed),
                sign or 1,
                num_steps if isinstance(num_steps, Tensor) else None,
            )
        if has_constant or magnitude is not grad:
            return StepSizes.weighing(values, grad, sign, root, weighed)
        return StepSizes(values, root, weighed)

    @marked(Range.UPDATE)
    def _remember(self, commit: Commit, player: Any, grad: Tensor, advance: Advance) -> None:
        """Add to a commit the averages that step sizes come from, where the step is taken."""
        if not self._is_adaptive(player):
            return
        # Formed anew rather than kept since `_step_sizes`: a pass is cheaper than a vector.
        average = self._stage_state(commit, player, "exp_avg_sq")
        # Written aside, so that the commit has one operation for it. The step sizes have been used.
        new = self._buffer(player, "step_sizes").copy_(average)
        flag = None if advance is True else advance
        grad = self._magnitude(player, grad)
        for where, group, _ in self._segments(player):
            if group["beta"] is not None:
                average_squares_(new[where], grad[where], group["beta"], flag)
        commit.copy(average, new)
