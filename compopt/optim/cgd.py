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
        min_params: of the first player, which minimises the loss: tensors, named tensors or group
            dictionaries (several networks, hyperparameters per group).
        max_params: of the second player, which maximises it.
        lr: step size, a number, a 0-dim tensor, or a pair (min, max) of them.
        interaction: step size alpha of the interaction terms, separate from that of the move:
            ``dx = -lr (I + alpha^2 D_xy D_yx)^-1 (g_x + alpha D_xy g_y)``, known as
            competitive gradient optimization. ``lr`` if None. If 0, in all groups of both players,
            nothing is solved: each takes the gradient step with its own step sizes, from no mixed
            product. That is the control to compare a competitive step with.
        weight_decay: decoupled; each step first multiplies parameters by ``1 - lr weight_decay``.
            0 where ``mirror`` is not Euclidean.
        max_grad_norm: largest Euclidean norm of a group's gradient; longer ones are scaled down.
        mirror: the mirror map of the set that parameters stay in, or a pair (min, max) of them;
            groups may have their own: ``"euclidean"``, ``"nonnegative"``, ``"simplex"``,
            ``("box", low, high)`` or ``"positive-definite"``. Parameters must lie strictly inside
            their sets. See :mod:`compopt.optim.mirrors`. Gradients are clipped before they are
            taken to local coordinates, where the last move of a warm start is kept and the norms
            of moves in ``last_step`` are measured. Costs two passes over the constrained parameters
            for each product; three eigendecompositions a step for each positive definite matrix.
        solver: of the linear system; if None :class:`~compopt.solvers.ConjugateGradient` with its
            defaults, and for a pair of losses :class:`~compopt.solvers.GMRES` with its own.
        warm_start: whether to start the solver from the player's last move, which costs one
            product and saves iterations where successive steps are alike. With mini-batches they
            are not, and the errors of loose solves accumulate: give the solver an ``rtol`` of
            1e-2 or less.
        solve_for: the player whose move is solved for, the other replying in closed form:
            ``"min"``, ``"max"``, ``"smaller"`` (the one with fewer parameters, which takes least
            memory) or ``"alternate"`` (as the published code does, beginning with the max player).
            An exact solve gives the same step whichever it is.
        on_failure: what to do when the solve fails or anything is not finite. ``"fallback"`` takes
            the plain gradient step of both players with the same step sizes, or nothing if the
            gradients themselves are not finite; ``"skip"`` takes nothing; ``"raise"`` raises
            :class:`~compopt.StepError`. A step not taken leaves parameters and state as they were.
        capturable: whether a step must read nothing on the host, for device graphs. Needs a solver
            with a fixed iteration count, and ``lr`` as a tensor on the device if it is to change: a
            graph keeps a number. A step that fails is left out without a warning; see
            ``last_step.taken`` and ``last_step.failure()``.
        backend: of the vector kernels: ``"torch"``, ``"triton"`` (an error where it is
            missing), or ``"auto"``: Triton for CUDA tensors if it can be imported.
        process_group: of ``torch.distributed`` whose processes share each step, every one with its
            own part of the batch: the loss of a step is then the mean of theirs, and the loss that
            ``step`` returns too. See :class:`~compopt.distributed.Replicated`, and
            :class:`~compopt.distributed.Sharded` for state that does not fit.

    Attributes:
        last_step: a :class:`~compopt.StepReport` of the last step; an AttributeError
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
