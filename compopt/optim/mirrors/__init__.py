"""Mirror maps of constrained players: competitive mirror descent.

With ``mirror=`` the step of :class:`~compopt.CGD` or :class:`~compopt.ACGD` keeps parameters inside
a set. Each player has a mirror map psi of its set. With the metrics ``P = Hess psi_x(x)`` and
``Q = Hess psi_y(y)`` a step plays the Nash equilibrium of the local bilinear game in which moving
costs ``d^T P d / (2 lr)``, and follows the moves d in the dual geometry, inside the sets:

    dx = -(P / lr + lr D_xy Q^-1 D_yx)^-1 (g_x + lr D_xy Q^-1 grad_y f)
    grad psi_x(x+) = grad psi_x(x) + P dx

and likewise for y. It is computed as a step in coordinates in which the metric is the identity, so
that every option of the optimizer applies.

========================  ========================  =========================================
``mirror``                set                       ``x+``, with the move d
========================  ========================  =========================================
``"euclidean"``           all                       ``x + d``
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

Without interaction the step on a simplex is that of multiplicative weights. Moves are relative to
the metric: with an entropy ``lr`` times the gradient is the change of the logarithm. ACGD scales
each mirror map by the inverse of its step sizes. Entries that are constrained one by one have one
step size each, from the average of the squared gradient. Entries that share a constraint (a row of
a simplex, a matrix) share one step size, from the average of ``grad^T P^-1 grad``.

References:
    Schäfer, Anandkumar and Owhadi (2020), Competitive mirror descent.
    https://arxiv.org/abs/2006.10179
"""

from compopt.optim.mirrors.chart import Chart, Mirror
from compopt.optim.mirrors.local import PlayerCharts
from compopt.optim.mirrors.table import check_feasible, check_mirror, make_chart

__all__ = [
    "Chart",
    "Mirror",
    "PlayerCharts",
    "check_feasible",
    "check_mirror",
    "make_chart",
]
