"""Steps of small games, where Python overhead matters, in units of an eager Adam step.

Run ``python -m benchmarks.small_games``. All contestants take turns in one process on one thread,
each on its own copy of the networks, and processor times are divided by that of Adam in the same
round. "Autograd alone" runs only the backward passes of a step with one iteration: a lower bound.
``--compiled`` adds compiled steps, which take minutes to compile. Results go to
``benchmarks/results/small_games.json`` and ``.md``.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import compopt
from benchmarks.harness import (
    RESULTS,
    arguments,
    in_turns,
    markdown_table,
    processor_seconds,
    ratios,
    spread,
    write_result,
)
from compopt import ACGD, ConjugateGradient
from compopt.optim.rivals import OGDA, ExtraAdam

GAMES = {
    "2 + 2 hidden layers of 32": (2, 32),
    "2 + 2 hidden layers of 128": (2, 128),
    "13 + 13 hidden layers of 16": (13, 16),
}
BATCH_SIZE = 64
LR = 1e-4
ONE = ConjugateGradient(rtol=0.0, max_iter=1)

Step = Callable[[], object]


class Play:
    """Two networks, a batch, and their loss.

    Attributes:
        networks: networks of the min and of the max player.
        players: their parameters.
        batch: the arguments of the loss after the networks.
        loss_fn: returns the loss from networks and batch.
    """

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        batch: tuple[Tensor, ...],
        loss_fn: Callable[..., Tensor],
    ) -> None:
        self.networks, self.batch, self.loss_fn = networks, batch, loss_fn
        self.players = [list(network.parameters()) for network in networks]

    def loss(self) -> Tensor:
        """Return the loss."""
        return self.loss_fn(*self.networks, *self.batch)


def small_game(depth: int, width: int) -> Play:
    """Return a Wasserstein game of perceptrons."""
    torch.manual_seed(1)
    networks = _network(4, depth, width, 2), _network(2, depth, width, 1)
    batch = torch.randn(BATCH_SIZE, 4), torch.randn(BATCH_SIZE, 2)

    def loss_fn(generator: nn.Module, critic: nn.Module, noise: Tensor, real: Tensor) -> Tensor:
        return critic(real).mean() - critic(generator(noise)).mean()

    return Play(networks, batch, loss_fn)


def _network(size: int, depth: int, width: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth + 1):
        layers += [nn.Linear(size, width), nn.Tanh()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, out))


def adam(play: Play, **options: Any) -> Step:
    """Return Adam's step of both players, with one backward pass."""
    generator, critic = play.players
    optimizers = [
        torch.optim.Adam(generator, LR, **options),
        torch.optim.Adam(critic, LR, maximize=True, **options),
    ]

    def step() -> None:
        loss = play.loss()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def acgd(play: Play, **options: Any) -> Step:
    """Return the step of ACGD."""
    optimizer = ACGD(*play.players, lr=LR, **options)
    return lambda: optimizer.step(play.loss())


def autograd_alone(play: Play) -> Step:
    """Return the backward passes of a step with one iteration: gradients and two products."""
    generator, critic = play.players

    def step() -> None:
        grads = torch.autograd.grad(
            play.loss(), [*generator, *critic], create_graph=True, allow_unused=True
        )
        players = grads[: len(generator)], grads[len(generator) :]
        for own, other in ((players[0], critic), (players[1], generator)):
            outputs = [g for g in own if g is not None and g.requires_grad]
            torch.autograd.grad(
                outputs, other, [g.detach() for g in outputs], retain_graph=True, allow_unused=True
            )

    return step


def rival(cls: Any, play: Play) -> Step:
    """Return the step of a rival."""
    optimizer = cls(*play.players, lr=LR)
    return lambda: optimizer.step(play.loss)


def cgds(play: Play) -> Step:
    """Return the step of CGDs 0.4.5.

    Raises:
        ImportError: if it is not installed.
    """
    import CGDs

    generator, critic = play.players
    optimizer = CGDs.ACGD(max_params=critic, min_params=generator, lr_max=LR, lr_min=LR)

    def step() -> None:
        optimizer.zero_grad()
        optimizer.step(play.loss())

    return step


def compiled_adam(play: Play) -> Step:
    """Return Adam's step, with the loss and the steps of both optimizers compiled."""
    generator, critic = play.players
    optimizers = [
        torch.optim.Adam(generator, LR),
        torch.optim.Adam(critic, LR, maximize=True),
    ]
    loss_fn = torch.compile(play.loss)
    moves = [torch.compile(optimizer.step) for optimizer in optimizers]

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_fn().backward()
        for move in moves:
            move()

    return step


def compiled_acgd(play: Play) -> Step:
    """Return the step of ACGD with one iteration, compiled as one program."""
    optimizer = ACGD(*play.players, lr=LR, solver=ONE)
    step = compopt.compile(optimizer, play.loss_fn, *play.networks)
    return lambda: step(*play.batch)


CONTESTANTS: dict[str, Callable[[Play], Step]] = {
    "Adam": adam,
    "Adam, fused": partial(adam, fused=True),
    "autograd alone": autograd_alone,
    "ACGD, one iteration": partial(acgd, solver=ONE),
    "ACGD": acgd,
    "OGDA": partial(rival, OGDA),
    "ExtraAdam": partial(rival, ExtraAdam),
    "CGDs 0.4.5": cgds,
}

COMPILED: dict[str, Callable[[Play], Step]] = {
    "Adam, compiled": compiled_adam,
    "ACGD, one iteration, compiled": compiled_acgd,
}


def measure(
    start: Callable[[], Play],
    rounds: int,
    contestants: dict[str, Callable[[Play], Step]],
    what: str,
) -> dict[str, dict[str, float]]:
    """Return, by contestant, the median in Adam steps, its quartiles, and milliseconds."""
    steps = {}
    for name, build in contestants.items():
        try:
            steps[name] = build(start())
        except ImportError:
            print(f"{name} is left out: it is not installed.")
    times = in_turns(steps, rounds, seconds=processor_seconds, warm_up=5, what=what)
    rows = {}
    for name, own in times.items():
        middle, low, high = spread(ratios(own, times["Adam"]), part=4)
        figures = {"adam_steps": middle, "quarter": low, "three_quarters": high}
        rows[name] = {**figures, "ms": 1e3 * statistics.median(own)}
    return rows


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the medians in Adam steps as a table."""
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    rows = (
        [name, *(f"{r[name]['adam_steps']:.2f}" if name in r else "" for r in found.values())]
        for name in names
    )
    return markdown_table(["", *found], rows)


def main(words: list[str] | None = None) -> None:
    """Measure, write the results and print the table."""
    parser = arguments(__doc__, rounds=60, out=RESULTS / "small_games")
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--compiled", action="store_true", help="compiled steps as well")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    contestants = {**CONTESTANTS, **(COMPILED if options.compiled else {})}
    found = {
        name: measure(partial(small_game, *GAMES[name]), options.rounds, contestants, name)
        for name in options.games
    }
    text = table(found)
    data = {"rounds": options.rounds, "games": found}
    write_result(options.out.with_suffix(".json"), data, ("CGDs",))
    options.out.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
