"""What a user writes: run and type-checked against each kind of install.

Every form of a step returns what it is said to, to the type checker and as it is run.
"""

import sys
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import compopt
from compopt import ACGD, CGD, Game, MicroBatches, PolymatrixCGD, StepReport, losses

Pair = tuple[Tensor, Tensor]

assert Path(compopt.kernels.__file__ or "").parent.parent == Path(compopt.__file__).parent
assert not {"triton", "compopt.nn", "compopt.games", "compopt.optim.rivals"} & set(sys.modules)

G, D = nn.Linear(4, 2), nn.Linear(2, 1)
rates = [1e-3, 1e-4]
optimizer = ACGD(G.parameters(), D.parameters(), lr=rates)


def scores() -> Pair:
    real: Tensor = D(torch.randn(8, 2))
    fake: Tensor = D(G(torch.randn(8, 4)))
    return real, fake


def loss() -> Tensor:
    return losses.wasserstein(*scores())


def pair() -> Pair:
    return losses.non_saturating(*scores())


def one(value: Tensor) -> None:
    assert isinstance(value, Tensor)


def two(value: Pair) -> None:
    assert isinstance(value, tuple)


one(assert_type(optimizer.step(loss()), Tensor))
one(assert_type(optimizer.step(loss), Tensor))
one(assert_type(optimizer.step(lambda: loss()), Tensor))
one(assert_type(optimizer.step(loss(), player="max"), Tensor))
one(assert_type(optimizer.step(MicroBatches([loss(), loss()])), Tensor))
two(assert_type(optimizer.step(pair()), Pair))
two(assert_type(optimizer.step(pair), Pair))
two(assert_type(optimizer.step(MicroBatches(pair() for _ in range(2))), Pair))
penalty = compopt.penalties.R1()(D, torch.randn(8, 2))
game = optimizer.step(Game(loss(), max_penalty=penalty))
one(game if isinstance(game, Tensor) else game[0])

one(assert_type(optimizer.backward(loss()), Tensor))
prepared = assert_type(optimizer.step(), Tensor | Pair | None)
assert prepared is not None
two(assert_type(optimizer.backward(pair), Pair))
optimizer.zero_grad()
assert optimizer.step() is None

scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
report = assert_type(optimizer.last_step, StepReport[Literal["min", "max"]])
print(report.num_iter / 2, report.grad_norms["min"] + 1.0, report)

many = PolymatrixCGD([G.parameters(), D.parameters()], lr=rates)
assert isinstance(assert_type(many.step(pair()), list[Tensor]), list)
assert isinstance(assert_type(many.backward(pair()), list[Tensor]), list)
assert_type(many.last_step, StepReport[int])

rivals = compopt.optim.rivals
one(assert_type(rivals.OGDA(G.parameters(), D.parameters(), lr=(1e-3, 1e-4)).step(loss), Tensor))
two(
    assert_type(
        rivals.AlternatingDescentAscent(
            G.parameters(), D.parameters(), optimizer=torch.optim.Adam
        ).step(pair),
        Pair,
    )
)
mirror = ("euclidean", ("box", -1.0, 1.0))
groups = [{"params": G.parameters(), "lr": 1e-3}]
CGD(groups, D.parameters(), lr=torch.tensor(1e-3), mirror=mirror)

print(
    compopt.__version__, compopt.nn.fuse(G), compopt.games.bilinear, Path(compopt.__file__).parent
)
