"""Mistakes that users make, what they are told, and what the message advises, done literally."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compopt import ACGD, CGD, GMRES, ConjugateGradient, PolymatrixCGD
from compopt.penalties import R1


class Play:
    """A small GAN, as a user would write it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.generator = nn.Linear(2, 2)
        self.critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        self.real, self.noise = torch.randn(4, 2), torch.randn(4, 2)
        self.x, self.y = (torch.ones(2, requires_grad=True) for _ in range(2))

    @property
    def players(self) -> tuple[list[Tensor], list[Tensor]]:
        return list(self.generator.parameters()), list(self.critic.parameters())

    def fake(self) -> Tensor:
        return self.generator(self.noise)

    def loss(self) -> Tensor:
        return self.critic(self.real).mean() - self.critic(self.fake()).mean()

    def pair(self) -> tuple[Tensor, Tensor]:
        loss = self.loss()
        return loss, -loss

    def cgd(self, **options: Any) -> CGD:
        return CGD(self.generator.parameters(), self.critic.parameters(), lr=0.1, **options)

    def of_tensors(self, **options: Any) -> CGD:
        return CGD([self.x], [self.y], lr=0.1, **options)

    @contextmanager
    def moves(self, *modules: nn.Module) -> Iterator[None]:
        """Check that the parameters of ``modules``, of both by default, move, and no others."""
        both = (self.generator, self.critic)
        before = {m: [p.detach().clone() for p in m.parameters()] for m in both}
        yield
        for module, old in before.items():
            now = list(module.parameters())
            moved = any(not torch.equal(a, b) for a, b in zip(now, old, strict=True))
            assert moved == (module in (modules or both))


Act = Callable[[Play], Any]


@dataclass(frozen=True)
class Mistake:
    """A mistake: how it is made, the error and its message, and the remedy that it names."""

    name: str
    make: Act
    error: type[Exception]
    match: str
    remedy: Act


def builds(make: Callable[[Play], CGD]) -> Act:
    """Return a remedy: an optimizer can be made and takes a step of both players."""

    def remedy(play: Play) -> None:
        with play.moves():
            make(play).step(play.loss())

    return remedy


def steps(act: Act) -> Act:
    """Return a remedy that moves both players."""

    def remedy(play: Play) -> None:
        with play.moves():
            act(play)

    return remedy


def moves_tensors(act: Act) -> Act:
    """Return a remedy that moves ``play.x`` and ``play.y``, which it may replace."""

    def remedy(play: Play) -> None:
        act(play)
        for value in (play.x, play.y):
            assert not torch.equal(value.detach(), torch.ones_like(value))
            assert bool(torch.isfinite(value).all())

    return remedy


def row(name: str, make: Act, error: type[Exception], match: str, remedy: Act) -> Mistake:
    """Return a mistake whose remedy moves both players."""
    return Mistake(name, make, error, match, steps(remedy))


def general(play: Play) -> CGD:
    return play.cgd(solver=GMRES())


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def in_inference_mode(make: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return make()


def negative_lr(play: Play) -> CGD:
    return CGD(*play.players, lr=(0.1, -0.1))


def plain_tensors(play: Play) -> None:
    play.x, play.y = torch.ones(2), torch.ones(2)
    play.of_tensors()


def plain_tensors_remedied(play: Play) -> None:
    play.x, play.y = torch.ones(2), torch.ones(2)
    play.x.requires_grad_()
    play.y.requires_grad_()
    play.of_tensors().step((play.x * play.y).sum())


def complex_remedied(play: Play) -> None:
    z = torch.ones(2, dtype=torch.complex64)
    play.x = torch.view_as_real(z).requires_grad_()
    play.of_tensors().step(torch.view_as_complex(play.x).abs().sum() * play.y.sum())


CONSTRUCTIONS = (
    Mistake(
        "module",
        lambda play: CGD(play.generator, play.critic.parameters()),
        TypeError,
        r"got the module Linear. Pass `module\.parameters\(\)`",
        builds(lambda play: CGD(play.generator.parameters(), play.critic.parameters())),
    ),
    Mistake(
        "parameters-uncalled",
        lambda play: CGD(play.generator.parameters, play.critic.parameters()),
        TypeError,
        r"`min_params` must be an iterable.*got method\. Call it: `parameters\(\)`",
        builds(lambda play: CGD(play.generator.parameters(), play.critic.parameters())),
    ),
    Mistake(
        "tensor",
        lambda play: CGD(play.x, [play.y]),
        TypeError,
        r"got a tensor\. Wrap it in a list: `\[min_params\]`",
        moves_tensors(lambda play: CGD([play.x], [play.y]).step((play.x * play.y).sum())),
    ),
    Mistake(
        "set",
        lambda play: CGD(set(play.players[0]), play.players[1]),
        TypeError,
        "must be ordered, got a set.*Pass a list",
        builds(lambda play: CGD(list(play.players[0]), play.players[1])),
    ),
    Mistake(
        "one-player",
        lambda play: CGD(play.players[0] + play.players[1]),
        TypeError,
        "`max_params` is missing. Pass both players' parameters",
        builds(lambda play: CGD(play.players[0], play.players[1])),
    ),
    Mistake(
        "plain-tensors",
        plain_tensors,
        ValueError,
        r"The tensors of the min player do not require gradients.*Call `requires_grad_\(\)`",
        moves_tensors(plain_tensors_remedied),
    ),
    Mistake(
        "made-in-inference-mode",
        lambda play: CGD(in_inference_mode(lambda: [nn.Parameter(torch.ones(2))]), [play.y]),
        ValueError,
        r"made outside `torch\.inference_mode\(\)`.*Build the networks outside",
        builds(lambda play: play.cgd()),
    ),
    Mistake(
        "complex",
        lambda play: CGD([play.x], [torch.ones(2, dtype=torch.complex64, requires_grad=True)]),
        ValueError,
        r"real floating-point tensors, got torch\.complex64.*torch\.view_as_real",
        moves_tensors(complex_remedied),
    ),
    Mistake(
        "expanded",
        lambda play: CGD([torch.ones(1).expand(2).requires_grad_()], [play.y]),
        ValueError,
        r"expanded one of shape \(2,\)\. Clone it",
        lambda play: CGD([torch.ones(1).expand(2).clone().requires_grad_()], [play.y]),
    ),
    Mistake(
        "solver-class",
        lambda play: play.cgd(solver=ConjugateGradient),
        TypeError,
        r"got the class ConjugateGradient\. Use `ConjugateGradient\(\)`",
        builds(lambda play: play.cgd(solver=ConjugateGradient())),
    ),
    Mistake(
        "solver-name",
        lambda play: play.cgd(solver="cg"),
        TypeError,
        r"must have a method `solve`, got 'cg'\..*`ConjugateGradient\(rtol=1e-2\)`",
        builds(lambda play: play.cgd(solver=ConjugateGradient(rtol=1e-2))),
    ),
    Mistake(
        "solver-class-of-many-players",
        lambda play: PolymatrixCGD(play.players, solver=GMRES),
        TypeError,
        r"got the class GMRES\. Use `GMRES\(\)`",
        lambda play: PolymatrixCGD(play.players, solver=GMRES()),
    ),
    Mistake(
        "solver-of-many-players",
        lambda play: PolymatrixCGD(play.players, solver=ConjugateGradient()),
        TypeError,
        r"must not be ConjugateGradient.*Use GMRES\(\)",
        steps(lambda play: PolymatrixCGD(play.players, solver=GMRES()).step(list(play.pair()))),
    ),
    Mistake(
        "capturable",
        lambda play: play.cgd(capturable=True),
        ValueError,
        r"fixed iteration count.*ConjugateGradient\(rtol=0\.0, max_iter=2\)",
        builds(
            lambda play: play.cgd(capturable=True, solver=ConjugateGradient(rtol=0.0, max_iter=2))
        ),
    ),
    Mistake(
        "lr-of-numpy",
        lambda play: CGD(*play.players, lr=np.float32(0.1)),
        TypeError,
        r"`lr` must be a number, got .*Use `float\(lr\)`",
        builds(lambda play: CGD(*play.players, lr=float(np.float32(0.1)))),
    ),
    Mistake(
        "count-of-numpy",
        lambda play: ConjugateGradient(max_iter=np.int64(3)),
        TypeError,
        r"`max_iter` must be an integer, got .*Use `int\(max_iter\)`",
        builds(lambda play: play.cgd(solver=ConjugateGradient(max_iter=int(np.int64(3))))),
    ),
    Mistake(
        "negative-lr",
        negative_lr,
        ValueError,
        r"got -0\.1\. The max player maximizes the loss already: give both players positive rates",
        builds(lambda play: CGD(*play.players, lr=(0.1, 0.1))),
    ),
    Mistake(
        "lr-by-position",
        lambda play: CGD(*play.players, 0.1, 0.2),
        TypeError,
        r"`CGD` takes 3 positional arguments, got 4\..*`lr=\(min, max\)`",
        builds(lambda play: CGD(*play.players, lr=(0.1, 0.2))),
    ),
    Mistake(
        "maximize-in-a-group",
        lambda play: CGD(play.players[0], [{"params": play.players[1], "maximize": True}]),
        ValueError,
        "`maximize` must not be set.*maximize it as `max_params`",
        builds(lambda play: CGD(play.players[0], [{"params": play.players[1]}])),
    ),
    Mistake(
        "maximize",
        lambda play: play.cgd(maximize=True),
        TypeError,
        "`CGD` takes no `maximize`. The max player maximizes the loss already",
        builds(lambda play: play.cgd()),
    ),
    Mistake(
        "betas",
        lambda play: ACGD(*play.players, betas=(0.5, 0.9)),
        TypeError,
        "`ACGD` takes no `betas`.*decay rate is `beta`, a number",
        builds(lambda play: ACGD(*play.players, beta=0.9)),
    ),
    Mistake(
        "misspelt",
        lambda play: play.cgd(warmstart=True),
        TypeError,
        "`CGD` takes no `warmstart`. Did you mean `warm_start`?",
        builds(lambda play: play.cgd(warm_start=True)),
    ),
    Mistake(
        "learning-rate-of-another-library",
        lambda play: CGD(*play.players, step=0.1),
        TypeError,
        "`CGD` takes no `step`. It takes min_params, max_params, lr, ",
        builds(lambda play: CGD(*play.players, lr=0.1)),
    ),
    Mistake(
        "penalty-called-at-once",
        lambda play: R1(play.critic, play.real),
        TypeError,
        r"`R1` takes hyperparameters, got a network.*`R1\(\)\(critic, real\)`",
        lambda play: R1()(critic=play.critic, real=play.real),
    ),
    Mistake(
        "penalty-on-a-misspelt-input",
        lambda play: R1().on(critic=play.critic, reel=play.real),
        TypeError,
        "No penalty takes `reel`. Did you mean `real`?",
        lambda play: R1().on(critic=play.critic, real=play.real),
    ),
)
