"""A small GAN in float64 whose batches are split among ranks, and ways to step it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from compopt import ACGD, CGD, GMRES, ConjugateGradient, Game, MicroBatches
from compopt.distributed import batch_weight

NUM_STEPS = 50
BATCH = 16


class SharedGame:
    """Networks and batches that are the same on every rank; each takes its part of the batches."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.generator = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
            self.critic = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)).double()
            self.noise = torch.randn(NUM_STEPS, BATCH, 2, dtype=torch.float64)
            self.real = torch.randn(NUM_STEPS, BATCH, 2, dtype=torch.float64) + 1

    def params(self) -> list[Tensor]:
        return [*self.generator.parameters(), *self.critic.parameters()]

    def loss(self, step: int, part: slice = slice(None)) -> Tensor:
        softplus = nn.functional.softplus
        real = self.critic(self.real[step, part])
        fake = self.critic(self.generator(self.noise[step, part]))
        return -softplus(-real).mean() - softplus(fake).mean()

    def gradient_penalty(self, step: int, part: slice = slice(None)) -> Tensor:
        real = self.real[step, part].clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(real).sum(), real, create_graph=True)
        return slope.square().sum(dim=1).mean()

    def smoothness(self, step: int, part: slice = slice(None)) -> Tensor:
        return 0.1 * self.generator(self.noise[step, part]).square().mean()


def part_of(group: dist.ProcessGroup | None) -> slice:
    """Return this rank's part of a batch, everything without a group."""
    if group is None:
        return slice(None)
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    return slice(rank * BATCH // size, (rank + 1) * BATCH // size)


def plain(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    return optimizer.step(game.loss(step, part))


def closure(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    return optimizer.step(lambda: game.loss(step, part))


def penalized(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    return optimizer.step(
        game.loss(step, part),
        min_penalty=game.smoothness(step, part),
        max_penalty=game.gradient_penalty(step, part),
    )


def other_curvature(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    curvature = game.loss(step, part) + game.critic(game.generator(game.noise[step, part])).mean()
    return optimizer.step(game.loss(step, part), curvature_loss=curvature)


def one_penalty(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    loss, penalty = game.loss(step, part), game.gradient_penalty(step, part)
    return optimizer.step(lambda: Game(loss, max_penalty=penalty))


def micro_batches(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    rows = torch.arange(BATCH)[part]
    middle = len(rows) // 2
    halves = (rows[:middle], rows[middle:])
    return optimizer.step(MicroBatches(game.loss(step, half) for half in halves))


def two_phase(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    loss = optimizer.backward(game.loss(step, part), max_penalty=game.gradient_penalty(step, part))
    nn.utils.clip_grad_norm_(game.params(), 0.5)
    optimizer.step()
    return loss


def scaled(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    loss = optimizer.backward(game.loss(step, part), scaler=scaler)
    scaler.step(optimizer)
    return loss


def critic_first(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    """Take a step of the critic alone, as scripts with two optimizers do, then one of both."""
    fake = game.generator(game.noise[step, part]).detach()
    alone = game.critic(game.real[step, part]).mean() - game.critic(fake).mean()
    loss = optimizer.step(alone, max_penalty=game.gradient_penalty(step, part), player="max")
    return loss + optimizer.step(game.loss(step, part))


def general_sum(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    loss = game.loss(step, part)
    return optimizer.step((loss + game.smoothness(step, part), 0.5 * loss.square() - loss))


def linear_general_sum(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    loss = game.loss(step, part)
    return optimizer.step((loss, game.smoothness(step, part) - loss))


def unequal(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    """Take 1 sample fewer on each rank than on the one before; one process takes them all."""
    if part == slice(None):
        size = dist_size()
        rows = [r for rank in range(size) for r in uneven_rows(rank, size)]
        return optimizer.step(game.loss(step, torch.tensor(rows)))
    size = BATCH // (part.stop - part.start)
    rows = uneven_rows(part.start * size // BATCH, size)
    weight = batch_weight(len(rows), process_group=optimizer.process_group.collectives.group)
    return optimizer.step(weight * game.loss(step, torch.tensor(rows)))


def idle(optimizer: Any, game: SharedGame, step: int, part: slice) -> Any:
    """Leave the last rank without samples; one process takes those of the others."""
    length = BATCH // dist_size()
    if part == slice(None):
        return optimizer.step(game.loss(step, slice(0, BATCH - length)))
    length = part.stop - part.start
    is_idle = part.stop == BATCH
    group = optimizer.process_group.collectives.group
    weight = batch_weight(0 if is_idle else length, process_group=group)
    if is_idle:
        return optimizer.step(0 * torch.stack([param.sum() for param in game.params()]).sum())
    return optimizer.step(weight * game.loss(step, part))


def dist_size() -> int:
    """Return for how many ranks a single process stands in; set by the tests."""
    return _STANDS_FOR[0]


_STANDS_FOR = [1]


def uneven_rows(rank: int, size: int) -> list[int]:
    length = BATCH // size
    return list(range(rank * length, (rank + 1) * length))[: length - rank]


@dataclass(frozen=True)
class Way:
    """A way to step: the optimizer's class and arguments, and how it is called."""

    step: Callable[[Any, SharedGame, int, slice], Any] = plain
    cls: type = ACGD
    kwargs: dict[str, Any] = field(default_factory=dict)
    shards: bool = True
    """Whether optimizers with sharded vectors can do it."""

    def build(self, game: SharedGame, process_group: Any) -> Any:
        players = list(game.generator.parameters()), list(game.critic.parameters())
        kwargs = {"lr": 0.02, **self.kwargs}
        return self.cls(*players, process_group=process_group, **kwargs)

    def run(
        self, process_group: Any = None, part: slice = slice(None), num_steps: int = NUM_STEPS
    ) -> dict[str, Any]:
        """Return the final parameters, the losses, and the iterations of each step."""
        game = SharedGame()
        optimizer = self.build(game, process_group)
        losses, iterations = [], []
        for step in range(num_steps):
            loss = self.step(optimizer, game, step, part)
            losses.append(torch.stack(loss) if isinstance(loss, tuple) else loss)
            iterations.append(optimizer.last_step.num_iter)
        return {
            "params": [param.detach().clone() for param in game.params()],
            "losses": torch.stack(losses),
            "iterations": iterations,
        }


TIGHT = ConjugateGradient(rtol=1e-8, max_iter=60)
FIXED = ConjugateGradient(rtol=0.0, max_iter=3)

WAYS: dict[str, Way] = {
    "plain": Way(),
    "tight": Way(kwargs={"solver": TIGHT, "lr": 0.1}),
    "cgd": Way(cls=CGD, kwargs={"lr": 0.3, "interaction": 0.7}),
    "warm-alternate": Way(
        kwargs={"warm_start": True, "solve_for": "alternate", "weight_decay": 0.1}
    ),
    "capturable": Way(kwargs={"solver": FIXED, "capturable": True}),
    "clipped": Way(kwargs={"max_grad_norm": 0.05}),
    "closure": Way(closure),
    "critic-first": Way(critic_first, kwargs={"max_grad_norm": 0.5}),
    "penalties": Way(penalized),
    "one-penalty": Way(one_penalty),
    "curvature-loss": Way(other_curvature),
    "micro-batches": Way(micro_batches),
    "two-phase": Way(two_phase),
    "scaled": Way(scaled),
    "general-sum": Way(
        linear_general_sum, kwargs={"solver": GMRES(rtol=1e-8, max_iter=60)}, shards=False
    ),
    "unequal": Way(unequal),
    "idle-rank": Way(idle),
}
