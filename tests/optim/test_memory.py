"""What a step holds: the formula of the guide. Activation checkpointing changes no step."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.live_memory import LiveBytes
from benchmarks.step_scaling import fully_connected
from compopt import ACGD, ConjugateGradient
from compopt._flat import FlatLayout, Workspace
from compopt.derivatives import differentiate
from compopt.game import Game


def players_of(play) -> list[list[nn.Parameter]]:
    return [list(player.parameters()) for player in (play.min_player, play.max_player)]


def held_by_the_graph(width: int, batch_size: int) -> int:
    """Return the bytes of what products need: the gradients, and what their graph saved."""
    play = fully_connected(width, batch_size)
    x, y = players_of(play)
    workspace = Workspace()
    vector = workspace.vector(FlatLayout.of([*x, *y]), "grad", "min", "max")
    losses = play.losses(1)
    with LiveBytes([*x, *y, vector]) as live:
        before = live.now
        gradients = differentiate(Game(next(losses)), {"min": x, "max": y}, workspace=workspace)
        held = live.now - before
    assert gradients.num_products == 0
    return held


@pytest.mark.parametrize(("width", "batch_size"), [(128, 64), (256, 256), (512, 64)])
def test_the_memory_of_a_step_is_what_the_guide_says(width, batch_size) -> None:
    play = fully_connected(width, batch_size)
    x, y = players_of(play)
    sizes = [sum(param.numel() for param in own) for own in (x, y)]
    both, solved, other = sum(sizes), min(sizes), max(sizes)
    optimizer = ACGD(x, y, solver=ConjugateGradient(rtol=0.0, max_iter=2))
    losses = play.losses(1)
    with LiveBytes([*x, *y]) as live:
        for _ in range(2):
            optimizer.step(next(losses))
        kept = live.peak = live.now
        optimizer.step(next(losses))
    vectors = 4 * (5 * both + 5 * solved + 2 * other)
    assert kept == pytest.approx(vectors, rel=1e-3)
    saved = held_by_the_graph(width, batch_size) - 4 * both
    peak = vectors + 4 * both + 1.1 * saved + 4 * both
    assert live.peak == pytest.approx(peak, rel=0.05)


class Blocks(nn.Module):
    """Blocks of layers whose inner results may be computed again when they are needed."""

    def __init__(self, is_checkpointed: bool) -> None:
        super().__init__()
        self.is_checkpointed = is_checkpointed
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs), nn.Tanh())
            for inputs, outputs in ((4, 8), (8, 8), (8, 4))
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            if self.is_checkpointed:
                values = checkpoint(block, values, use_reentrant=False)
            else:
                values = block(values)
        return values


def after_steps(is_checkpointed: bool) -> torch.Tensor:
    """Return the parameters after three steps in float64."""
    torch.manual_seed(0)
    generator, critic = (Blocks(is_checkpointed).double() for _ in range(2))
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=1e-2)
    real, noise = torch.randn(2, 64, 4, dtype=torch.float64)
    for _ in range(3):
        optimizer.step(lambda: critic(real).mean() - critic(generator(noise)).square().mean())
    params = [*generator.parameters(), *critic.parameters()]
    return torch.cat([param.detach().flatten() for param in params])


def test_checkpointing_changes_no_step() -> None:
    torch.testing.assert_close(after_steps(True), after_steps(False), rtol=1e-10, atol=1e-13)
