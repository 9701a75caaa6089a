"""Small games as modules, with data as inputs, for steps compiled and eager."""

from collections.abc import Callable, Iterator
from types import CellType
from typing import Any

import torch
from cases import CASES
from torch import Tensor, nn

import compopt
from compopt import ACGD, CGD, ConjugateGradient

DRAWS = {"real": (6, 2), "noise": (6, 3)}


def fixed(count: int = 1) -> ConjugateGradient:
    """Return a solver of so many iterations."""
    return ConjugateGradient(rtol=0.0, max_iter=count)


class Play:
    """Networks, a loss of theirs and of inputs, and batches of inputs."""

    def __init__(
        self, networks: list[nn.Module], loss_fn: Callable[..., Any], batches: list[Any]
    ) -> None:
        self.networks = networks
        self.loss_fn = loss_fn
        self.batches = batches

    @property
    def params(self) -> list[list[Tensor]]:
        """The parameters of both players."""
        return [list(network.parameters()) for network in self.networks]

    def flat(self) -> Tensor:
        """Return parameters and buffers as one vector."""
        tensors = [t for network in self.networks for t in network.state_dict().values()]
        return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def of_case(name: str) -> Play:
    """Return a case of the dense tests, which holds its data in the cells of closures."""
    case = CASES[name]()
    cells = list(_cells(case.loss))
    data = [cell.cell_contents for cell in cells]

    def loss_fn(xs: nn.ParameterList, ys: nn.ParameterList, *inputs: Tensor) -> Tensor:
        for cell, value in zip(cells, inputs, strict=True):
            cell.cell_contents = value
        return case.loss(list(xs.parameters()), list(ys.parameters()))

    players = [nn.ParameterList(params) for params in (case.min_params, case.max_params)]
    return Play(players, loss_fn, [data] * 3)


def _cells(function: Callable[..., Any]) -> Iterator[CellType]:
    for cell in function.__closure__ or ():
        if isinstance(cell.cell_contents, Tensor):
            yield cell
        elif callable(cell.cell_contents) and not isinstance(cell.cell_contents, nn.Module):
            yield from _cells(cell.cell_contents)


def gan(dtype: torch.dtype = torch.float64, *, dropout: float = 0.3) -> Play:
    """Return a GAN with running statistics and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        generator = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)
        ).to(dtype)
        critic = nn.Sequential(
            nn.Linear(2, 4), nn.Softplus(), nn.Dropout(dropout), nn.Linear(4, 1)
        ).to(dtype)
        batches = [[torch.randn(s, dtype=dtype) for s in DRAWS.values()] for _ in range(5)]
    return Play([generator, critic], gan_loss, batches)


def linear_gan() -> Play:
    """Return a GAN of two linear layers, which is traced in half the time."""
    play = gan()
    play.networks = [nn.Linear(3, 2).double(), nn.Linear(2, 1).double()]
    return play


def gan_loss(generator: nn.Module, critic: nn.Module, real: Tensor, noise: Tensor) -> Tensor:
    """Return a zero-sum loss of bounded scores."""
    return critic(real).tanh().mean() - critic(generator(noise)).tanh().mean()


Make = Callable[..., CGD | ACGD]


def steps(play: Play, make: Make, num_steps: int = 3, **options: Any) -> tuple[CGD, list[Tensor]]:
    """Take compiled steps from one seed; return the optimizer, and the game after each of them."""
    torch.manual_seed(7)
    optimizer = make(*play.params)
    step = compopt.compile(optimizer, play.loss_fn, *play.networks, **options)
    seen = []
    for index in range(num_steps):
        loss = step(*play.batches[index % len(play.batches)])
        losses = loss if isinstance(loss, tuple) else (loss,)
        seen.append(torch.cat([play.flat(), torch.stack(losses).double()]))
    return optimizer, seen


def largest_error(seen: list[Tensor], truth: list[Tensor]) -> float:
    """Return the largest relative error of a game after a step."""
    return max(
        float((one - other).norm() / other.norm()) for one, other in zip(seen, truth, strict=True)
    )
