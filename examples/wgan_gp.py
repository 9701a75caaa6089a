"""WGAN-GP with five critic steps: by alternating Adam, and by ACGD's steps of one player.

Both have the gradient penalty of the paper. ACGD's ``step(loss, player="max")`` moves only the
critic and shares step sizes, averages and counts with competitive steps; then one step moves both.
A third run takes only competitive steps, without a penalty.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from gaussian_mixture_gan import BATCH, DRAWN, NOISE, RING, WIDTH, real_points
from mode_report import found
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from two_players import mlp, wasserstein

from compopt import ACGD
from compopt.penalties import WganGP

CRITIC_STEPS = 5


class Gan:
    """Networks, and their loss on a new batch."""

    def __init__(self) -> None:
        self.generator, self.critic = mlp(NOISE, WIDTH, WIDTH, 2), mlp(2, WIDTH, WIDTH, 1)

    def batch(self, detach: bool = False) -> tuple[Tensor, Tensor]:
        """Return the loss and the critic's penalty."""
        real, fake = real_points("ring", BATCH), self.generator(torch.randn(BATCH, NOISE))
        loss = wasserstein(self.critic(real), self.critic(fake.detach() if detach else fake))
        return loss, WganGP()(self.critic, real, fake)


def by_adam(gan: Gan) -> Callable[[], None]:
    """Return the loop of the paper: five critic steps, then one generator step."""
    of_generator = torch.optim.Adam(gan.generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    of_critic = torch.optim.Adam(gan.critic.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def step() -> None:
        for _ in range(CRITIC_STEPS):
            loss, penalty = gan.batch(detach=True)
            of_critic.zero_grad()
            torch.autograd.backward(penalty - loss)
            of_critic.step()
        torch.autograd.backward(gan.batch()[0], inputs=list(gan.generator.parameters()))
        of_generator.step()
        of_generator.zero_grad()

    return step


def by_acgd(gan: Gan) -> Callable[[], None]:
    """Return the same loop with one optimizer; the last of five steps moves both players."""
    optimizer = ACGD(gan.generator.parameters(), gan.critic.parameters(), lr=1e-3)

    def step() -> None:
        for _ in range(CRITIC_STEPS - 1):
            loss, penalty = gan.batch(detach=True)
            optimizer.step(loss, max_penalty=penalty, player="max")
        loss, penalty = gan.batch()
        optimizer.step(loss, max_penalty=penalty)

    return step


def by_competition(gan: Gan) -> Callable[[], None]:
    """Return a loop of the same number of competitive steps, without a penalty."""
    optimizer = ACGD(gan.generator.parameters(), gan.critic.parameters(), lr=1e-3)
    return lambda: [optimizer.step(gan.batch()[0]) for _ in range(CRITIC_STEPS)].clear()


METHODS = {"Adam, 5 to 1": by_adam, "ACGD, 5 to 1": by_acgd, "ACGD, no penalty": by_competition}


def main(argv: Sequence[str] | None = None) -> dict[str, tuple[int, float]]:
    """Run the example; return modes found and the share of good samples by method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="of the generator, or 5 of both")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    scores, table = {}, Table("", "modes found of 8", "good samples")
    for name, method in METHODS.items():
        torch.manual_seed(args.seed)
        step = method(gan := Gan())
        for _ in track(range(args.steps), name):
            step()
        scores[name] = found(gan.generator(torch.randn(DRAWN, NOISE)).detach(), RING)
        table.add_row(name, str(scores[name][0]), f"{scores[name][1]:.0%}")
    Console().print(table)
    return scores


if __name__ == "__main__":
    main()
