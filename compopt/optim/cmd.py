"""Competitive mirror descent."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from compopt._typing import PLAYERS, Params, Player
from compopt.optim.acgd import ACGD
from compopt.optim.base import CompetitiveOptimizer
from compopt.optim.cgd import CGD
from compopt.optim.commit import Advance, Commit
from compopt.optim.mirrors import (
    Chart,
    Mirror,
    PlayerCharts,
    check_feasible,
    check_mirror,
    in_local_coordinates,
    make_chart,
)
from compopt.optim.players import TwoPlayerOptimizer
from compopt.optim.step_sizes import StepSizes
from compopt.optim.trouble import OnFailure, SolveFor
from compopt.optim.update import Gradients
from compopt.solvers import Solver

MirrorOrPair: TypeAlias = Mirror | tuple[Mirror, Mirror]


class _InLocalCoordinates(CompetitiveOptimizer):
    """Takes the step of its other base class in the coordinates of the groups' mirror maps."""

    def __init__(self, *args: Any, mirror: MirrorOrPair, **options: Any) -> None:
        self._given_mirror = mirror
        for player in PLAYERS:
            check_mirror(_mirror_of(player, mirror))
        super().__init__(*args, **options)

    # Products in local coordinates are those of one process.
    _place = TwoPlayerOptimizer._place

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._charts: dict[Tensor, Chart] = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to a player: as in ``torch.optim``, with ``player`` in the group."""
        if "mirror" not in self.defaults:
            self.defaults["mirror"] = self._given_mirror
        if isinstance(param_group, dict) and "mirror" not in param_group:
            mirror = _mirror_of(param_group.get("player"), self.defaults["mirror"])
            param_group = {**param_group, "mirror": mirror}
        super().add_param_group(param_group)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        mirror = group.get("mirror", "euclidean")
        check_mirror(mirror)
        if mirror != "euclidean" and group["weight_decay"]:
            raise ValueError(
                f"`weight_decay` must be 0 with `mirror` {mirror!r}, got "
                f"{group['weight_decay']!r}: decay would leave the set. Add a term to the loss."
            )
        if mirror == "positive-definite" and self.capturable:
            raise ValueError(f"`capturable` forbids `mirror` {mirror!r}, which reads values.")
        for entry in group.get("params", ()):
            check_feasible(mirror, entry[1] if isinstance(entry, tuple) else entry)

    def _clip(self, gradients: Gradients) -> tuple[Gradients, dict[Player, Tensor]]:
        gradients, norms = super()._clip(gradients)
        charts: dict[Player, PlayerCharts] = {}
        self._charts = {}
        for player in PLAYERS:
            entries = self._entries(player)
            layout = gradients.mixed.layout(player)
            made = [
                make_chart(group["mirror"], param.detach().to(layout.dtype))
                for param, group in entries
            ]
            charts[player] = PlayerCharts(layout, made)
            for (param, _), chart in zip(entries, made, strict=True):
                if chart is not None:
                    self._charts[param] = chart
        self._player_charts: Mapping[Player, PlayerCharts] = charts
        return in_local_coordinates(gradients, charts), norms

    def _step_alone(self, *_: object) -> Any:
        raise TypeError(
            f"{type(self).__name__} moves both players together; a step of one player alone is for "
            "CGD and ACGD."
        )

    def _stage_group(
        self,
        commit: Commit,
        group: dict[str, Any],
        moves: Mapping[Tensor, Tensor],
        advance: Advance,
    ) -> None:
        plain = {param: move for param, move in moves.items() if param not in self._charts}
        super()._stage_group(commit, group, plain, advance)
        for param in moves.keys() - plain.keys():
            moved = self._charts[param].moved(moves[param]).to(param.dtype)
            commit.copy(param, moved if advance is True else moved.where(advance, param))


class CMD(_InLocalCoordinates, CGD):
    r"""Competitive mirror descent: CGD for players whose parameters are constrained.

    Each player has a mirror map :math:`\psi` of its set. With the metrics
    :math:`P = \nabla^2 \psi_x(x)` and :math:`Q = \nabla^2 \psi_y(y)`, a step plays the Nash
    equilibrium of the local bilinear game in which moving costs
    :math:`\delta^\top P \delta / (2 \eta)`, and follows the moves in the dual geometry, which
    leaves no set:

    .. math::
        \delta_x &= -(P / \eta + \eta D_{xy} Q^{-1} D_{yx})^{-1}
                    (\nabla_x f + \eta D_{xy} Q^{-1} \nabla_y f) \\
        \nabla \psi_x(x^+) &= \nabla \psi_x(x) + P \delta_x

    and likewise for y. It is computed as a step of CGD in coordinates in which the metric is the
    identity, so every option of CGD applies.

    ========================  ========================  =========================================
    ``mirror``                set                       ``x+``, with the move d
    ========================  ========================  =========================================
    ``"euclidean"``           all                       ``x + d``: the step of CGD
    ``"nonnegative"``         entries > 0               ``x exp(d / x)``
    ``"simplex"``             entries > 0 that sum to   ``x exp(d / x)``, normalized; d sums to 0
                              1 along the last
                              dimension
    ``("box", low, high)``    low < entries < high      logit of ``x``'s place plus ``P d``
    ``"positive-definite"``   symmetric matrices        ``(X^-1 - X^-1 D X^-1)^-1``, see
                              [..., n, n]               :class:`PositiveDefinite
                                                        <compopt.optim.mirrors.coupled.
                                                        PositiveDefinite>`
    ========================  ========================  =========================================

    Without interaction the step on a simplex is that of multiplicative weights.

    Args:
        min_params: see :class:`~compopt.CGD`, as for all arguments but ``mirror``.
        max_params: the second player's.
        lr: step size. Moves are relative to the metric: with an entropy ``lr`` times the gradient
            is the change of the logarithm.
        mirror: the mirror map, or a pair (min, max) of them. Groups may have their own. Parameters
            must lie strictly inside their sets and stay there.
        interaction: strength of the interaction, in place of ``lr``.
        weight_decay: of groups whose mirror is Euclidean; others refuse it.
        max_grad_norm: of the gradient before it is taken to local coordinates.
        solver: of the linear system.
        warm_start: the last move is kept in local coordinates.
        solve_for: the player whose move is solved for.
        on_failure: what to do when the solve fails. The fallback is mirror descent.
        capturable: not with positive definite matrices.
        backend: of the vector kernels.

    Attributes:
        last_step: a :class:`~compopt.StepReport` of the last step, None before the first. Its norms
            of moves are those of the metric.

    Raises:
        ValueError: if a parameter does not lie strictly inside its set, or is in half precision.

    Cost: as :class:`~compopt.CGD`, and two passes over the constrained parameters for each product;
    three eigendecompositions a step for each positive definite matrix.

    Example:
        >>> p, q = (torch.tensor([0.7, 0.2, 0.1], requires_grad=True) for _ in range(2))
        >>> payoff = torch.tensor([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])
        >>> optimizer = CMD([p], [q], lr=0.5, mirror="simplex")
        >>> for _ in range(200):
        ...     loss = optimizer.step(p @ payoff @ q)
        >>> bool((p - 1 / 3).abs().max() < 1e-3)
        True

    References:
        Schäfer, Anandkumar and Owhadi (2020), Competitive mirror descent.
        https://arxiv.org/abs/2006.10179
    """

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: float | Tensor | tuple[float | Tensor, float | Tensor] = 1e-3,
        *,
        mirror: MirrorOrPair = "euclidean",
        interaction: float | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        solver: Solver | None = None,
        warm_start: bool = False,
        solve_for: SolveFor = "smaller",
        on_failure: OnFailure = "fallback",
        capturable: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            min_params,
            max_params,
            lr,
            mirror=mirror,
            interaction=interaction,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            solver=solver,
            warm_start=warm_start,
            solve_for=solve_for,
            on_failure=on_failure,
            capturable=capturable,
            backend=backend,
        )


class ACMD(_InLocalCoordinates, ACGD):
    r"""Adaptive competitive mirror descent: :class:`CMD` with the step sizes of ACGD.

    Each mirror map is scaled by the inverse of the step sizes A of :class:`~compopt.ACGD`. For
    entries with a constraint of their own these come from the average of the squared gradient, as
    there. Entries that share a constraint, a row of a simplex or a matrix, share one step size,
    from the average of :math:`\nabla^\top P^{-1} \nabla`; so their mirror map is scaled as a whole.

    Args:
        min_params: see :class:`CMD`, as for all but the next two.
        max_params: the second player's.
        lr: step size.
        mirror: see :class:`CMD`.
        beta: decay rate of the average of squares.
        eps: added to the root of the average.
        interaction: see :class:`CMD`, as for all that follow.
        weight_decay: of groups whose mirror is Euclidean.
        max_grad_norm: of the gradient before it is taken to local coordinates.
        solver: of the linear system.
        warm_start: the last move is kept in local coordinates.
        solve_for: the player whose move is solved for.
        on_failure: what to do when the solve fails.
        capturable: not with positive definite matrices.
        backend: of the vector kernels.

    Attributes:
        last_step: a :class:`~compopt.StepReport` of the last step, None before the first.

    Cost: as :class:`CMD`. Memory: one vector per player is kept.

    References:
        Schäfer, Anandkumar and Owhadi (2020), for the step. https://arxiv.org/abs/2006.10179
        Schäfer, Zheng and Anandkumar (2020), for the step sizes. https://arxiv.org/abs/1910.05852
    """

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: float | Tensor | tuple[float | Tensor, float | Tensor] = 1e-3,
        *,
        mirror: MirrorOrPair = "euclidean",
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
    ) -> None:
        super().__init__(
            min_params,
            max_params,
            lr,
            mirror=mirror,
            beta=beta,
            eps=eps,
            interaction=interaction,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            solver=solver,
            warm_start=warm_start,
            solve_for=solve_for,
            on_failure=on_failure,
            capturable=capturable,
            backend=backend,
        )

    def _step_sizes(self, player: Player, grad: Tensor, sign: int | None) -> StepSizes:
        magnitude = self._player_charts[player].magnitude(grad)
        sizes = super()._step_sizes(player, magnitude, sign)
        # The average sees the magnitude, the step the gradient.
        return StepSizes.weighing(sizes.values, grad, sign, sizes.root, sizes.weighed_grad)

    def _remember(self, commit: Commit, player: Player, grad: Tensor, advance: Advance) -> None:
        super()._remember(commit, player, self._player_charts[player].magnitude(grad), advance)


def _mirror_of(player: object, mirror: MirrorOrPair) -> Any:
    """Return the player's mirror map from one, or a pair of one for each."""
    if isinstance(mirror, tuple | list) and len(mirror) == len(PLAYERS):
        return mirror[player == "max"]
    return mirror
