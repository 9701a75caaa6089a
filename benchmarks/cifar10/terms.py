"""Explicit terms to compare the implicit regularization with, by name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks.cifar10.batches import Draw
from benchmarks.cifar10.errors import BenchmarkError, require
from compopt.penalties import (
    L2,
    R1,
    AdvAs,
    Diversity,
    Dragan,
    Layers,
    Lazy,
    Penalty,
    SpectralRegularizer,
    WganGP,
)


@dataclass
class TermConfig:
    """An explicit term.

    Attributes:
        kind: a key of :data:`TERMS`.
        options: its settings by name, such as ``coefficient``; others are as published.
    """

    kind: str = "none"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self, "term.kind", self.kind in TERMS, f"one of {[*TERMS]}")


@dataclass
class Term:
    """An explicit term for one critic.

    Attributes:
        on_critic: returns the term that the critic minimises, from critic, real and fake images.
        on_generator: returns the term that the generator minimises, from value and networks.
        projection: changes the critic's weights after a step.
        gradients: numbers of gradients that the term adds for the critic and the generator.
        needs_value: whether ``on_generator`` needs the full value of the game.
        lazy: the critic's term, if it is evaluated only at some steps.
    """

    on_critic: Callable[[nn.Module, Tensor, Tensor, Draw], Tensor | None] | None = None
    on_generator: Callable[[Tensor, nn.Module, nn.Module, Draw], Tensor] | None = None
    projection: SpectralRegularizer | None = None
    gradients: tuple[int, int] = (0, 0)
    needs_value: bool = field(default=False)
    lazy: Lazy | None = None

    @property
    def calls(self) -> tuple[int, int]:
        """Numbers of gradients that the term added to the last evaluation."""
        was_due = self.lazy is None or (self.lazy.num_calls - 1) % self.lazy.every == 0
        return self.gradients if was_due else (0, self.gradients[1])

    def critic_penalty(
        self, critic: nn.Module, real: Tensor, fake: Tensor, draw: Draw
    ) -> Tensor | None:
        """Return the critic's term, or None."""
        return None if self.on_critic is None else self.on_critic(critic, real, fake, draw)

    def generator_penalty(
        self, value: Tensor, generator: nn.Module, critic: nn.Module, draw: Draw
    ) -> Tensor | None:
        """Return the generator's term, or None."""
        if self.on_generator is None:
            return None
        return self.on_generator(value, generator, critic, draw)

    def after_step(self) -> None:
        """Apply the projection, if there is one."""
        if self.projection is not None:
            self.projection.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the projection and the lazy term."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {"projection": self.projection, "lazy": self.lazy}
        return {name: part for name, part in parts.items() if part is not None}


def dropout_of(config: TermConfig) -> float:
    """Return the critic's dropout probability; the published default is one half."""
    value = config.options.get("probability", 0.5) if config.kind == "dropout" else 0.0
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise BenchmarkError(f"`probability` of 'dropout' must be in [0, 1), got {value!r}.")
    return float(value)


def build_term(config: TermConfig, critic: nn.Module) -> Term:
    """Return the term, and add the parametrization that it needs to ``critic``.

    Args:
        config: the term and its options.
        critic: critic with initial weights. Dropout is part of the network: :func:`dropout_of`.

    Raises:
        BenchmarkError: if an option is unknown or not valid.
    """
    try:
        return TERMS[config.kind](critic, **config.options)
    except (TypeError, ValueError) as error:
        known = list(inspect.signature(TERMS[config.kind]).parameters)[1:]
        raise BenchmarkError(
            f"The options {config.options} of the term {config.kind!r} are not valid "
            f"(known: {', '.join(known) or 'none'}): {error}"
        ) from error


def _of_samples(penalty: Penalty) -> Term:
    """Return a critic's term on gradients at samples, which adds two gradients."""
    return Term(
        lambda critic, real, fake, draw: penalty.on(
            critic=critic, real=real, fake=fake, generator=draw.random
        ),
        gradients=(2, 0),
    )


def _none(critic: nn.Module) -> Term:
    return Term()


def _from_catalogue(kind: type[Penalty]) -> Callable[..., Term]:
    return lambda critic, **options: _of_samples(kind(**options))


def _r1(critic: nn.Module, coefficient: float = 10.0, every: int = 1) -> Term:
    term = _of_samples(R1(coefficient=coefficient))
    if every > 1:
        assert term.on_critic is not None
        term.on_critic = term.lazy = Lazy(term.on_critic, every=every)
    return term


def _l2(critic: nn.Module, coefficient: float = 1e-3) -> Term:
    penalty = L2(coefficient=coefficient)
    return Term(lambda critic, real, fake, draw: penalty(critic))


def _diversity(
    critic: nn.Module, coefficient: float = 0.1, generator: float = 0.001, threshold: float = 0.5
) -> Term:
    # The published code leaves out the layer at the image.
    layers = Layers(image_channels=3)
    on_critic = Diversity(coefficient=coefficient, threshold=threshold, layers=layers)
    on_generator = Diversity(coefficient=generator, threshold=threshold, layers=layers)
    return Term(
        lambda critic, real, fake, draw: on_critic(critic),
        lambda value, generator, critic, draw: on_generator(generator),
    )


def _advas(critic: nn.Module, coefficient: float | None = None) -> Term:
    penalty = AdvAs(coefficient=coefficient)
    return Term(
        on_generator=lambda value, generator, critic, draw: penalty(value, critic, generator),
        # The adversary's gradient and its derivative; two more for the self-scaling coefficient.
        gradients=(0, 4 if coefficient is None else 2),
        needs_value=True,
    )


def _spectral_norm(critic: nn.Module) -> Term:
    for layer in critic.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            parametrizations.spectral_norm(layer)
    return Term()


def _srgan(critic: nn.Module, share: float = 0.5, every: int = 5) -> Term:
    term = _spectral_norm(critic)
    term.projection = SpectralRegularizer(critic, share=share, every=every)
    return term


def _dropout(critic: nn.Module, probability: float = 0.5) -> Term:
    # The network already contains it.
    return Term()


TERMS: dict[str, Callable[..., Term]] = {
    "none": _none,
    "wgan-gp": _from_catalogue(WganGP),
    "r1": _r1,
    "dragan": _from_catalogue(Dragan),
    "spectral-norm": _spectral_norm,
    "srgan": _srgan,
    "diversity": _diversity,
    "advas": _advas,
    "l2": _l2,
    "dropout": _dropout,
}
"""All terms by the name that protocols call them."""
