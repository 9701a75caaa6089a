"""How near an optimizer's steps come to the exactly solved ones."""

import torch
from torch import Tensor

from benchmarks.contestants import EXACT, Contestant, Step
from benchmarks.workloads import Play, Workload

STEPS = 4
SEED = 2


def step_error(contestant: Contestant, workload: Workload) -> float:
    """Return the relative error of the way gone in a few steps, against exactly solved ones.

    Both start from the same weights and see the same batches. In the Euclidean norm over both
    players' parameters, single precision.
    """
    ways = []
    for build in (contestant.build, EXACT):
        play = workload.start()
        before = _parameters(play)
        _take_steps(play, build(play, workload.lr))
        ways.append(_parameters(play) - before)
    way, exact = ways
    return float(torch.linalg.vector_norm(way - exact) / torch.linalg.vector_norm(exact))


def _take_steps(play: Play, step: Step) -> None:
    losses = play.losses(SEED)
    for _ in range(STEPS):
        step(lambda: next(losses))


def _parameters(play: Play) -> Tensor:
    params = [*play.min_player.parameters(), *play.max_player.parameters()]
    return torch.cat([param.detach().flatten() for param in params]).double()
