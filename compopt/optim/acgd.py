"""Adaptive competitive gradient descent."""

from typing_extensions import Unpack

from compopt._typing import LearningRates, Params
from compopt.optim.two_player import TwoPlayerCompetitive, TwoPlayerOptions

RTOL = 0.3
"""Default tolerance of a solve. Where the players interact weakly, one iteration meets it.

For the same cost of training, GANs do as well with it as with smaller ones or better, and strongly
coupled games are still solved (``python -m benchmarks.tolerances``).
"""
RTOL_WARM = 1e-2
"""Default tolerance with a warm start, where the errors of solves accumulate over steps."""


class ACGD(TwoPlayerCompetitive):
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
        min_params: parameters of the first player, which minimises the loss: tensors, named
            tensors or group dictionaries (several networks, hyperparameters per group).
        max_params: parameters of the second player, which maximises it.
        lr: a number, a 0-dim tensor, or a pair (min, max) of them.
        beta: decay rate of the average of squared gradients.
        eps: added to the root of the average, before the bias correction is applied (unlike
            Adam's).
        interaction: step size of the interaction terms, in place of ``lr``; see
            :class:`~compopt.CGD`.
        weight_decay: see :class:`~compopt.CGD`, as for all arguments that follow.
        max_grad_norm: applied before the average is updated.
        mirror: see :class:`~compopt.CGD`.
        solver: solver of the linear system. If None, ``ConjugateGradient(rtol=0.3)``, or
            ``GMRES(rtol=0.3)`` for a pair of losses; with a warm start ``rtol=1e-2``.
        warm_start: see :class:`~compopt.CGD`. The last move is scaled by the current step sizes.
        solve_for: see :class:`~compopt.CGD`.
        on_failure: see :class:`~compopt.CGD`.
        capturable: see :class:`~compopt.CGD`.
        backend: see :class:`~compopt.CGD`.
        process_group: see :class:`~compopt.CGD`.

    Attributes:
        last_step: the :class:`~compopt.StepReport` of the last step; raises AttributeError
            before the first.

    Note:
        The published code solves to 1e-6 relative (its ``tol=1e-12`` is on squared norms), which
        ``solver=ConjugateGradient(rtol=1e-6, max_iter=1000)`` restores. On mini-batches that gains
        nothing: exact steps on two batches differ by more than their own length. In a game without
        noise, use ``ConjugateGradient()``.

    Cost: as :class:`~compopt.CGD`. Memory: three vectors per player are kept from step to step.

    References:
        Schäfer, Zheng and Anandkumar (2020), Implicit competitive regularization in GANs.
        https://arxiv.org/abs/1910.05852
    """

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-4,
        *,
        beta: float = 0.99,
        eps: float = 1e-5,
        **options: Unpack[TwoPlayerOptions],
    ) -> None:
        defaults = {"lr": lr, "beta": beta, "eps": eps}
        super().__init__(min_params, max_params, defaults, **options)

    def _default_rtol(self) -> float:
        return RTOL_WARM if self.warm_start else RTOL
