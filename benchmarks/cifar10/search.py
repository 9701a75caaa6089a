"""Search spaces of options, from which Optuna draws the trials of a method."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import optuna

from benchmarks.cifar10.errors import BenchmarkError


@dataclass
class Space:
    """The values of one option: an interval, or alternatives that set several options at once.

    Attributes:
        low: lower end of the interval.
        high: upper end.
        log: whether values are uniform in the logarithm.
        options: alternatives instead of an interval: by name, the optimizer's options to set.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_interval = self.low is not None and self.high is not None and self.low < self.high
        if is_interval == bool(self.options) or (self.log and (self.low or 0) <= 0):
            raise BenchmarkError(
                "A space must have either `low` < `high`, positive with `log`, or `options`; got "
                f"{self}."
            )

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Return the trial's value."""
        if self.options:
            return trial.suggest_categorical(name, list(self.options))
        assert self.low is not None
        assert self.high is not None
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass
class Methods:
    """Methods: all combinations of the listed names.

    Attributes:
        optimizers: names of the protocol's optimizers.
        losses: kinds of losses.
        terms: names of the protocol's terms.
    """

    optimizers: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield loss, optimizer and term of each method."""
        return itertools.product(self.losses, self.optimizers, self.terms)


@dataclass
class Search(Methods):
    """Trials of methods.

    Attributes:
        trials: number of trials of each method.
        seed: seed of the draws, and of the runs' weights, data order and noise.
        space: spaces by option of the optimizer, or of the term with the prefix ``term.``.
    """

    trials: int = 8
    seed: int = 100
    space: dict[str, Space] = field(default_factory=dict)

    def draws(self) -> list[dict[str, Any]]:
        """Return the values of each trial, the same at every call."""
        # Hide Optuna's message about this study, which only serves to draw values.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.RandomSampler(seed=self.seed)
        study = optuna.create_study(sampler=sampler)
        found = []
        for _ in range(self.trials):
            trial = study.ask()
            found.append({name: space.suggest(trial, name) for name, space in self.space.items()})
        return found

    def changes(self, choices: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the options that a trial sets for the optimizer, and for the term."""
        optimizer: dict[str, Any] = {}
        term: dict[str, Any] = {}
        for name, value in choices.items():
            options = self.space[name].options
            if options:
                optimizer |= options[value]
            elif name.startswith("term."):
                term[name.removeprefix("term.")] = value
            else:
                optimizer[name] = value
        return optimizer, term
