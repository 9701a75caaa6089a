"""Adaptive competitive gradient descent."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from compopt._checks import check_decay_rate, check_non_negative
from compopt._profiling import Range, marked
from compopt._typing import Params, Player
from compopt.distributed import Placement
from compopt.kernels import adaptive_setup_, average_squares_
from compopt.optim.base import CompetitiveOptimizer
from compopt.optim.commit import Advance, Commit
from compopt.optim.groups import interaction_strength
from compopt.optim.step_sizes import StepSizes
from compopt.optim.trouble import OnFailure, SolveFor
from compopt.solvers import ConjugateGradient, Solver

RTOL = 5e-2
"""Default tolerance of a solve; exact steps on two batches differ by more than their length."""
RTOL_WARM = 1e-2
"""That from a warm start, where what a solve leaves of the last move adds up over steps."""


def _default_solver(warm_start: bool) -> Solver:
    return ConjugateGradient(rtol=RTOL_WARM if warm_start else RTOL)


class ACGD(CompetitiveOptimizer):
    r"""Adaptive competitive gradient descent for ``min over x, max over y of f(x, y)``.

    :class:`~compopt.CGD` with a step size for each parameter, from a running average of its
    squared gradient as in RMSProp. At step t, for each player,

    .. math::
        v &\leftarrow \beta v + (1 - \beta) g^2 \\
        A &= \mathrm{lr} \sqrt{1 - \beta^t} / (\sqrt{v} + \epsilon)

    and, with :math:`N = A_x^{1/2} D_{xy} A_y^{1/2}`,

    .. math::
        (I + N N^T) s &= A_x^{1/2} (\nabla_x f + D_{xy} A_y \nabla_y f) \\
        \delta_x &= -A_x^{1/2} s \\
        \delta_y &= +A_y (\nabla_y f + D_{yx} \delta_x)

    Args:
        min_params: of the first player, which minimises the loss: tensors, named tensors or group
            dictionaries (several networks, hyperparameters per group).
        max_params: of the second player, which maximises it.
        lr: a number, a 0-dim tensor, or a pair (min, max) of them.
        beta: decay rate of the average of squared gradients.
        eps: added to the root of the average, before the bias correction is applied (unlike
            Adam's).
        interaction: step size with which the interaction counts, in place of ``lr``; see
            :class:`~compopt.CGD`.
        weight_decay: see :class:`~compopt.CGD`, as for all arguments that follow.
        max_grad_norm: applied before the average is updated.
        solver: of the linear system; if None ``ConjugateGradient(rtol=5e-2)``, and with a warm
            start ``ConjugateGradient(rtol=1e-2)``.
        warm_start: see :class:`~compopt.CGD`. The last move is scaled by the present step sizes.
        solve_for: see :class:`~compopt.CGD`.
        on_failure: see :class:`~compopt.CGD`.
        capturable: see :class:`~compopt.CGD`.
        backend: see :class:`~compopt.CGD`.
        process_group: see :class:`~compopt.CGD`.

    Attributes:
        last_step: a :class:`~compopt.StepReport` of the last step, None before the first.

    Note:
        The published code solves to 1e-6 relative (its ``tol=1e-12`` is on squared norms), which
        ``solver=ConjugateGradient(rtol=1e-6, max_iter=1000)`` restores. On mini-batches that buys
        nothing: steps on two batches differ by more than their length. In a game without noise,
        take ``ConjugateGradient()``.

    Cost: as :class:`~compopt.CGD`. Memory: three vectors per player are kept from step to step.

    References:
        Schäfer, Zheng and Anandkumar (2020), Implicit competitive regularization in GANs.
        https://arxiv.org/abs/1910.05852
    """

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: float | Tensor | tuple[float | Tensor, float | Tensor] = 1e-4,
        *,
        beta: float = 0.99,
        eps: float = 1e-5,
        interaction: float | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        solver: Solver | None = None,
        warm_start: bool = False,
        solve_for: SolveFor = "smaller",
        on_failure: OnFailure = "fallback",
        capturable: bool = False,
        backend: str = "auto",
        process_group: "dist.ProcessGroup | Placement | None" = None,
    ) -> None:
        super().__init__(
            min_params,
            max_params,
            {
                "lr": lr,
                "beta": beta,
                "eps": eps,
                "interaction": interaction,
                "weight_decay": weight_decay,
                "max_grad_norm": max_grad_norm,
            },
            solver=_default_solver(warm_start) if solver is None else solver,
            warm_start=warm_start,
            solve_for=solve_for,
            on_failure=on_failure,
            capturable=capturable,
            backend=backend,
            process_group=process_group,
        )

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        super()._check_hyperparameters(group)
        check_decay_rate("beta", group["beta"])
        check_non_negative("eps", group["eps"])

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ("exp_avg_sq", *super()._state_keys(player))

    @marked(Range.SET_UP)
    def _step_sizes(self, player: Player, grad: Tensor, sign: int | None) -> StepSizes:
        average = self._read_state(player, "exp_avg_sq")
        average = torch.zeros_like(grad) if average is None else average
        values, weighed = (self._buffer(player, name) for name in ("step_sizes", "weighed_grad"))
        root = None if sign is None else self._buffer(player, "root")
        for where, group, num_steps in self._segments(player):
            beta, rate = group["beta"], interaction_strength(group)
            if not isinstance(num_steps, Tensor):
                rate = rate * (1 - beta ** (num_steps + 1)) ** 0.5
            adaptive_setup_(
                average[where],
                grad[where],
                beta,
                rate,
                group["eps"],
                values[where],
                None if root is None else root[where],
                weighed[where],
                sign or 1,
                num_steps if isinstance(num_steps, Tensor) else None,
            )
        return StepSizes(values, root, weighed)

    @marked(Range.UPDATE)
    def _remember(self, commit: Commit, player: Player, grad: Tensor, advance: Advance) -> None:
        # Formed anew rather than kept since `_step_sizes`: a pass is cheaper than a vector.
        average = self._stage_state(commit, player, "exp_avg_sq")
        # Written aside, so that the commit has one operation for it. The step sizes have been used.
        new = self._buffer(player, "step_sizes").copy_(average)
        flag = None if advance is True else advance
        for where, group, _ in self._segments(player):
            average_squares_(new[where], grad[where], group["beta"], flag)
        commit.copy(average, new)
