"""The error of an optimizer's step against the exactly solved step."""

from functools import partial

import torch
from torch import Tensor

from benchmarks.contestants import EXACT, Contestant
from benchmarks.workloads import Play, Workload

SEED = 2


def step_error(contestant: Contestant, workload: Workload, device: torch.device) -> float:
    """Return the relative error of the first step against the exactly solved one.

    Both start from the same weights and use the same batch. The norm is Euclidean over both
    players' parameters, in single precision. Later steps are not compared, because trajectories
    diverge.
    """
    ways = []
    for build in (contestant.build, EXACT):
        play = workload.start().on(device)
        before = _parameters(play)
        batch = play.draw(torch.Generator().manual_seed(SEED))
        build(play, workload.lr)(partial(_loss, play, batch))
        ways.append(_parameters(play) - before)
    way, exact = ways
    return float(torch.linalg.vector_norm(way - exact) / torch.linalg.vector_norm(exact))


def _loss(play: Play, batch: tuple[Tensor, ...], share: float = 1.0) -> Tensor:
    return play.loss_of_part(batch, share)


def _parameters(play: Play) -> Tensor:
    params = [*play.min_player.parameters(), *play.max_player.parameters()]
    return torch.cat([param.detach().flatten() for param in params]).double()
