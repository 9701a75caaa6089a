"""What the migration page says of other packages, executed against them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compopt import ACGD, CGD, GMRES, ConjugateGradient

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migration.md"
NUM_STEPS = 4
TIGHT = ConjugateGradient(rtol=1e-10, max_iter=1000)
TIGHT_PAIR = GMRES(rtol=1e-10, max_iter=200, restart=200)


# What these packages call is deprecated in torch.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def _in_double_precision() -> Iterator[None]:
    """Their solvers work in the default dtype only."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Play:
    """A small game in double precision; every instance starts alike."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        self.real = torch.randn(NUM_STEPS, 8, 2)
        self.noise = torch.randn(NUM_STEPS, 8, 3)

    @property
    def players(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the min player's parameters, then the max player's."""
        return list(self.generator.parameters()), list(self.critic.parameters())

    def scores(self, step: int) -> tuple[Tensor, Tensor]:
        return self.critic(self.real[step]), self.critic(self.generator(self.noise[step]))

    def loss(self, step: int) -> Tensor:
        real, fake = self.scores(step)
        return real.sigmoid().mean() - fake.sigmoid().mean()

    def pair(self, step: int) -> tuple[Tensor, Tensor]:
        loss = self.loss(step)
        return loss, 0.1 * self.scores(step)[1].square().mean() - loss

    def vector(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for player in self.players for p in player])


Build = Callable[[Play], Any]


def assert_same_path(theirs: Build, ours: Build, tolerance: float, pair: bool = False) -> None:
    """Take the same steps with both packages and compare how far parameters have come."""
    ends, start = [], Play().vector()
    for build in (theirs, ours):
        play = Play()
        optimizer = build(play)
        for step in range(NUM_STEPS):
            if not pair:
                optimizer.step(play.loss(step))
            elif build is theirs:
                optimizer.step(*play.pair(step))
            else:
                optimizer.step(play.pair(step))
        ends.append(play.vector())
    assert (ends[0] - start).norm() > 0
    assert (ends[0] - ends[1]).norm() <= tolerance * (ends[0] - start).norm()


def test_acgd_of_cgds_has_the_max_player_first():
    package = pytest.importorskip("CGDs")
    assert_same_path(
        lambda p: package.ACGD(p.players[1], p.players[0], lr_max=1e-3, lr_min=2e-3),
        lambda p: ACGD(
            *p.players,
            lr=(2e-3, 1e-3),
            solver=ConjugateGradient(rtol=1e-6, max_iter=1000),
            warm_start=True,
            solve_for="alternate",
        ),
        1e-6,
    )


def test_bcgd_of_cgds_is_cgd():
    package = pytest.importorskip("CGDs")
    assert_same_path(
        lambda p: package.BCGD(p.players[1], p.players[0], lr_max=0.1, lr_min=0.2),
        lambda p: CGD(*p.players, lr=(0.2, 0.1), solver=TIGHT),
        1e-5,
    )


def test_gacgd_of_cgds_is_a_pair():
    package = pytest.importorskip("CGDs")
    assert_same_path(
        lambda p: package.GACGD(*p.players, lr_x=1e-3, lr_y=2e-3, tol=1e-12, atol=1e-14),
        lambda p: ACGD(*p.players, lr=(1e-3, 2e-3), eps=1e-6, solver=TIGHT_PAIR),
        1e-6,
        pair=True,
    )


def test_acgd_of_torch_cgd_has_other_defaults():
    package = pytest.importorskip("torch_cgd")
    assert_same_path(
        lambda p: package.ACGD(*p.players, lr=1e-3),
        lambda p: ACGD(*p.players, lr=1e-3, beta=0.9, eps=1e-3, solver=TIGHT),
        1e-9,
    )


def test_cgd_of_torch_cgd_takes_two_losses():
    package = pytest.importorskip("torch_cgd")
    assert_same_path(
        lambda p: package.CGD(*p.players, 0.1),
        lambda p: CGD(*p.players, lr=0.1, solver=TIGHT_PAIR),
        1e-8,
        pair=True,
    )


def test_torch_cgd_fails_where_a_parameter_has_no_mixed_derivative():
    package = pytest.importorskip("torch_cgd")
    play = Play()
    real, fake = play.scores(0)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        package.ACGD(*play.players).step(real.mean() - fake.mean())
    real, fake = play.scores(0)
    ACGD(*play.players).step(real.mean() - fake.mean())


def test_the_page_names_every_default_that_differs():
    text = PAGE.read_text()
    for default in ("beta=0.9, eps=1e-3", "eps=1e-6", "rtol=1e-6, max_iter=1000"):
        assert default in text
