"""Mirror maps of constrained players, and games seen in their local coordinates."""

from compopt.optim.mirrors.chart import Chart, Mirror
from compopt.optim.mirrors.local import PlayerCharts, in_local_coordinates
from compopt.optim.mirrors.table import check_feasible, check_mirror, make_chart

__all__ = [
    "Chart",
    "Mirror",
    "PlayerCharts",
    "check_feasible",
    "check_mirror",
    "in_local_coordinates",
    "make_chart",
]
