"""Competitive gradient descent."""

from typing_extensions import Unpack

from compopt._typing import LearningRates, Params
from compopt.optim.two_player import TwoPlayerCompetitive, TwoPlayerOptions


class CGD(TwoPlayerCompetitive):
    r"""Competitive gradient descent for ``min over x, max over y of f(x, y)``.

    Each step plays the Nash equilibrium of the local bilinear game in which moving costs
    :math:`|\delta|^2 / (2 \eta)`:

    .. math::
        \delta_x &= -\eta (I + \eta^2 D_{xy} D_{yx})^{-1} (\nabla_x f + \eta D_{xy} \nabla_y f) \\
        \delta_y &= +\eta (\nabla_y f + D_{yx} \delta_x)

    with the mixed block :math:`D_{xy} = \partial^2 f / \partial x \partial y`. Both players move at
    once, from one evaluation of the loss.

    Args:
        min_params: parameters of the first player, which minimises the loss: tensors, named
            tensors or group dictionaries (several networks, hyperparameters per group).
        max_params: parameters of the second player, which maximises it.
        lr: step size: a number, a 0-dim tensor, or a pair (min, max) of them.
        interaction: step size alpha of the interaction terms, separate from that of the move:
            ``dx = -lr (I + alpha^2 D_xy D_yx)^-1 (g_x + alpha D_xy g_y)``, known as
            competitive gradient optimization. ``lr`` if None. If 0, in all groups of both players,
            nothing is solved: each player takes the gradient step with its own step sizes, without
            mixed products. Use this as the baseline of a competitive step.
        weight_decay: decoupled; each step first multiplies parameters by ``1 - lr weight_decay``.
            Must be 0 where ``mirror`` is not Euclidean.
        max_grad_norm: largest Euclidean norm of a group's gradient; longer ones are scaled down.
        mirror: the mirror map of the set that parameters stay in, or a pair (min, max) of them;
            groups may have their own: ``"euclidean"``, ``"nonnegative"``, ``"simplex"``,
            ``("box", low, high)`` or ``"positive-definite"``. Parameters must lie strictly inside
            their sets. See :mod:`compopt.optim.mirrors`. Gradients are clipped before the change to
            local coordinates. The last move of a warm start and the norms of moves in ``last_step``
            are in local coordinates. Costs two passes over the constrained parameters for each
            product; three eigendecompositions a step for each positive definite matrix.
        solver: solver of the linear system. If None, :class:`~compopt.solvers.ConjugateGradient`,
            or :class:`~compopt.solvers.GMRES` for a pair of losses, with default arguments.
        warm_start: whether to start the solver from the player's last move, which costs one
            product and saves iterations if successive steps are similar. With mini-batches they
            are not, and the errors of loose solves accumulate: give the solver an ``rtol`` of
            1e-2 or less.
        solve_for: the player whose move is solved for; the other replies in closed form:
            ``"min"``, ``"max"``, ``"smaller"`` (the one with fewer parameters, which needs least
            memory) or ``"alternate"`` (as the published code does, beginning with the max player).
            An exact solve gives the same step for each choice.
        on_failure: what to do when the solve fails or a value is not finite. ``"fallback"`` takes
            the plain gradient step of both players with the same step sizes, or none if the
            gradients themselves are not finite; ``"skip"`` takes no step; ``"raise"`` raises
            :class:`~compopt.StepError`. If no step is taken, parameters and state are unchanged.
        capturable: whether steps must read nothing on the host, as device graphs require. Needs a
            solver with a fixed iteration count, and ``lr`` as a tensor on the device if it changes:
            in a graph, numbers are constants. A step that fails gives no warning; see
            ``last_step.taken`` and ``last_step.failure()``.
        backend: backend of the vector kernels: ``"torch"``, ``"triton"`` (an error if it is
            missing), or ``"auto"``: Triton for CUDA tensors if it can be imported.
        process_group: a ``torch.distributed`` group whose processes share each step. Each process
            computes the loss of its part of the batch; the step uses, and ``step`` returns, the
            mean of these losses. See :class:`~compopt.distributed.Replicated`, and
            :class:`~compopt.distributed.Sharded` for state that does not fit.

    Attributes:
        last_step: the :class:`~compopt.StepReport` of the last step; raises AttributeError
            before the first.

    Note:
        ``.grad`` is neither read nor written by ``step(loss)``.

    Cost: one backward pass for both gradients and ``2 k`` mixed Hessian-vector products for ``k``
    solver iterations (``1 + 2 k`` if the last residual is computed, see
    :class:`~compopt.ConjugateGradient`; one more after a warm start).

    Example:
        >>> x = torch.tensor([0.5], requires_grad=True)
        >>> y = torch.tensor([0.5], requires_grad=True)
        >>> optimizer = CGD([x], [y], lr=0.2)
        >>> for _ in range(50):
        ...     loss = optimizer.step((6 * x * y).sum())
        >>> bool(x.abs() < 1e-9)
        True

        Probabilities, in rock-paper-scissors:

        >>> p, q = (torch.tensor([0.7, 0.2, 0.1], requires_grad=True) for _ in range(2))
        >>> payoff = torch.tensor([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])
        >>> optimizer = CGD([p], [q], lr=0.5, mirror="simplex")
        >>> for _ in range(200):
        ...     loss = optimizer.step(p @ payoff @ q)
        >>> bool((p - 1 / 3).abs().max() < 1e-3)
        True

    References:
        Schäfer and Anandkumar (2019), Competitive gradient descent.
        https://arxiv.org/abs/1905.12103
        Vyas and Azizzadenesheli (2023), Competitive gradient optimization, for ``interaction``.
        https://arxiv.org/abs/2205.14232
    """

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        **options: Unpack[TwoPlayerOptions],
    ) -> None:
        super().__init__(min_params, max_params, {"lr": lr}, **options)
