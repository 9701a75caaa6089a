"""The experiments: by name, what each run is called and what makes its result."""

import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from torch import Tensor

from benchmarks.claims.planar import Setting, train
from benchmarks.toy.methods import Method
from benchmarks.toy.runs import mixture_run
from compopt import ACGD, CGD

Run = tuple[str, Callable[[], Any]]
SEEDS = 3

PLANAR: dict[str, Setting] = {
    "ring, non-saturating": Setting(),
    "ring, non-saturating, DRAGAN": Setting(terms=["dragan"]),
    "ring, Wasserstein": Setting(loss="wasserstein"),
    "ring, Wasserstein, AdvAs": Setting(loss="wasserstein", terms=["advas"]),
    "ring, WGAN-GP": Setting(loss="wasserstein", terms=["wgan-gp"]),
    "ring, WGAN-GP, 5 critic steps": Setting(loss="wasserstein", terms=["wgan-gp"], critic_steps=5),
    "ring, WGAN-GP, AdvAs, 5 critic steps": Setting(
        loss="wasserstein", terms=["wgan-gp", "advas"], critic_steps=5
    ),
    "ring, Wasserstein, ACGD": Setting(loss="wasserstein", optimizer="acgd"),
    "swiss roll, non-saturating": Setting(data="swiss roll"),
    "swiss roll, non-saturating, DRAGAN": Setting(data="swiss roll", terms=["dragan"]),
}


def planar() -> Iterator[Run]:
    """Yield runs in the plane."""
    for seed in range(SEEDS):
        for name, setting in PLANAR.items():
            yield f"{name}, seed {seed}", partial(train, setting, seed)


def architectures() -> Iterator[Run]:
    """Yield runs of random small architectures, each with and without DRAGAN."""
    draws = random.Random(0)
    for number in range(6):
        sizes = tuple(draws.choice([16, 32, 64, 128]) for _ in range(draws.choice([1, 2, 3, 4])))
        activation = draws.choice(["ReLU", "LeakyReLU", "Tanh", "ELU"])
        for terms in ([], ["dragan"]):
            setting = Setting(terms=terms, sizes=sizes, activation=activation)
            name = f"{' '.join(map(str, sizes))} {activation}{', DRAGAN' if terms else ''}"
            yield f"{number}: {name}", partial(train, setting, number)


@cache
def _images() -> Tensor:
    from benchmarks.cifar10.data import load_images

    return load_images(None).train


def filters() -> Iterator[Run]:
    """Yield counts of parallel filters, with and without the diversity term."""
    from benchmarks.claims import images

    for seed in range(2):
        for loss in ("wgan", "bce"):
            for term in ("none", "diversity"):
                name = f"{loss}, {term}, seed {seed}"
                yield name, lambda a=(loss, term, seed): images.filters(_images(), *a)


def spectra() -> Iterator[Run]:
    """Yield spectra and the variety of samples, without and with spectral normalization."""
    from benchmarks.claims import images

    for seed in range(2):
        for term in ("none", "spectral-norm", "srgan"):
            yield f"{term}, seed {seed}", lambda a=(term, seed): images.spectra(_images(), *a)


def _from_one(*players: Any, lr: float) -> ACGD:
    """Return ACGD whose averages begin at 1, as RMSProp's may, without a correction for that."""
    optimizer = ACGD(*players, lr=lr, beta=0.9)
    optimizer.step(None)
    for state in optimizer.state.values():
        state["exp_avg_sq"].fill_(1.0)
        state["step"].fill_(10_000.0)
    return optimizer


TWO_GAUSSIANS = {"CGD": CGD, "ACGD, averages from 1": _from_one}
RATES = (0.4, 0.1, 0.025, 0.005)


def two_gaussians() -> Iterator[Run]:
    """Yield the GAN of the CGD paper by what its step sizes may have meant."""
    for name, make in TWO_GAUSSIANS.items():
        for lr in RATES:
            yield (
                f"{name} lr={lr:g} seed=0",
                partial(mixture_run, Method(name, make, 4), lr, 0, 300),
            )


EXPERIMENTS: dict[str, Callable[[], Iterator[Run]]] = {
    "planar": planar,
    "filters": filters,
    "spectra": spectra,
    "architectures": architectures,
    "two_gaussians": two_gaussians,
}
