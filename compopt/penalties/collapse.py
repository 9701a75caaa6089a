"""The collapse monitor: records normalised spectra and warns when they fall or are low."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compopt._checks import check_count, check_non_negative, check_positive, check_share
from compopt._warn import warn
from compopt.penalties.layers import Layers
from compopt.penalties.spectra import normalized, singular_values, weight_matrices


class CollapseWarning(UserWarning):
    """A layer's spectrum fell or is low, which indicates that training collapses."""


@dataclass(frozen=True)
class CollapseAlarm:
    """A layer's spectrum that fell or is low.

    Attributes:
        layer: qualified name.
        step: training step of the alarm.
        level: mean of the watched normalised singular values at that step.
        peak: highest level within the window; equal to ``level`` if it was never higher.
    """

    layer: str
    step: int
    level: float
    peak: float

    def __str__(self) -> str:
        level = f"{self.level:.2f} of its largest singular value"
        has_fallen = self.peak > self.level
        how = f"fell from {self.peak:.2f} to {level} by" if has_fallen else f"is at {level} at"
        return (
            f"The spectrum of layer {self.layer!r} {how} step {self.step}: training may be "
            "collapsing. Go back to an earlier checkpoint, and use `SpectralRegularizer`."
        )


@dataclass(frozen=True)
class CollapseRule:
    """Criterion for a collapse.

    A layer's *level* is the mean of its normalised singular values ``sigma_k / sigma_1`` for k from
    2 to ``share * r``. An alarm is raised when the level is below ``low`` for the second time in a
    row and has not risen, or when it is below ``floor`` and at least ``fall`` below its peak within
    the last ``window`` steps.

    Args:
        share: watched share of the singular values, in (0, 1].
        low: level below which an alarm is raised at any step; 0 for none. It takes two records:
            without spectral normalization a healthy critic may start below and rise.
        floor: level below which a fall raises an alarm.
        fall: smallest decline from the peak that raises an alarm, > 0.
        window: number of steps over which the decline is measured, >= 1.
        warm_up: initial steps that do not count for the peak. Random initial weights have a flat
            spectrum, which falls in the first steps of any training, good or bad.
    """

    share: float = 0.5
    low: float = 0.1
    floor: float = 0.5
    fall: float = 0.2
    window: int = 3000
    warm_up: int = 1000

    def __post_init__(self) -> None:
        check_share("share", self.share)
        check_non_negative("low", self.low)
        check_non_negative("floor", self.floor)
        check_positive("fall", self.fall)
        check_count("window", self.window, minimum=1)
        check_count("warm_up", self.warm_up, minimum=0)

    def level(self, spectrum: Sequence[float] | Tensor) -> float:
        """Return the level of a normalised spectrum [r]; 1 for a layer of rank 1."""
        watched = [float(value) for value in spectrum[1 : max(2, int(self.share * len(spectrum)))]]
        return sum(watched) / len(watched) if watched else 1.0

    def judge(
        self, layer: str, steps: Sequence[int], spectra: Sequence[Sequence[float] | Tensor]
    ) -> CollapseAlarm | None:
        """Return an alarm if the last of a layer's spectra meets the criterion, else None.

        Args:
            layer: name of the layer, for the alarm.
            steps: steps of the records, increasing.
            spectra: a normalised spectrum [r] for each step.
        """
        now = steps[-1]
        recent = {
            step: self.level(spectrum)
            for step, spectrum in zip(steps, spectra, strict=True)
            if step >= now - self.window
        }
        level = recent[now]
        is_low = level < self.low and len(spectra) > 1
        if is_low and level <= self.level(spectra[-2]) < self.low:
            return CollapseAlarm(layer, now, level, max(recent.values()))
        peak = max((value for step, value in recent.items() if step >= self.warm_up), default=0.0)
        has_fallen = level < self.floor and peak - level >= self.fall
        return CollapseAlarm(layer, now, level, peak) if has_fallen else None


class CollapseMonitor:
    """Records normalised spectra and warns when they fall or are low.

    Collapse according to the paper: in critics with spectral normalization the values
    ``sigma_k / sigma_1`` fall from between 0.5 and 0.9 to below 0.5 within about 3000 steps, and
    sample quality falls with them. Without spectral normalization the critic of a plain Wasserstein
    loss goes below 0.1 within tens of steps, while all samples become one image. A
    :class:`CollapseRule` decides; there is at most one alarm per layer, and none for a slow decline
    above ``low``.

    Use it for convolutional critics; a layer with few filters or outputs has too short a spectrum.
    The documentation of the CIFAR-10 benchmark lists alarm rates for runs with and without
    collapse.

    Args:
        module: the network, usually the critic.
        layers: the layers to watch; None is ``Layers()``.
        rule: the criterion; None is ``CollapseRule()``.

    Attributes:
        steps: steps at which spectra were recorded.
        history: by layer, one spectrum [r] per record, on the CPU.
        alarms: all alarms so far.

    Cost: a batched SVD per record; synchronises with the device. Record at each evaluation rather
    than each step. Memory grows by one spectrum per layer and record.

    References:
        Liu et al. (2019). https://arxiv.org/abs/1908.10999
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        layers: Layers | None = None,
        rule: CollapseRule | None = None,
    ) -> None:
        self.module = module
        self.layers = Layers() if layers is None else layers
        self.rule = CollapseRule() if rule is None else rule
        self.steps: list[int] = []
        self.history: dict[str, list[Tensor]] = {name: [] for name in self.layers.of(module)}
        self.alarms: list[CollapseAlarm] = []

    @torch.no_grad()
    def record(self, step: int) -> list[CollapseAlarm]:
        """Record the current spectra; return new alarms and warn of each.

        Args:
            step: number of the training step, larger than that of the last record.

        Returns:
            The new alarms.

        Raises:
            ValueError: if ``step`` does not increase, or a weight is not finite.
        """
        check_count("step", step, minimum=0)
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"`step` must be above the last one, {self.steps[-1]}, got {step}.")
        matrices = weight_matrices(self.module, self.layers)
        for name, matrix in matrices.items():
            if not torch.isfinite(matrix).all():
                raise ValueError(f"The weight of layer {name!r} must be finite; it is not.")
        for name, values in singular_values(matrices).items():
            self.history[name].append(normalized(values).float().cpu())
        self.steps.append(step)
        alarmed = {alarm.layer for alarm in self.alarms}
        raised = [
            alarm
            for name in self.history
            if name not in alarmed
            and (alarm := self.rule.judge(name, self.steps, self.history[name])) is not None
        ]
        self.alarms += raised
        for alarm in raised:
            warn(str(alarm), CollapseWarning)
        return raised

    def levels(self, layer: str) -> list[float]:
        """Return the level of ``layer`` at each record; 1 for a layer of rank 1."""
        self._check_layer(layer)
        return [self.rule.level(spectrum) for spectrum in self.history[layer]]

    def spectra(self, layer: str) -> Tensor:
        """Return the spectra of ``layer`` [records, r]."""
        self._check_layer(layer)
        if not self.steps:
            raise RuntimeError("There are no spectra yet. Call `record(step)` first.")
        return torch.stack(self.history[layer])

    def _check_layer(self, layer: str) -> None:
        if layer not in self.history:
            raise ValueError(f"`layer` must be one of {list(self.history)}, got {layer!r}.")

    def plot(self, path: str | Path) -> Path:
        """Plot every layer's spectra over the steps, one panel per layer; needs matplotlib.

        Args:
            path: file to write; its extension selects the format.

        Returns:
            The path.
        """
        from compopt.penalties.collapse_plot import draw_spectra

        return draw_spectra(self, Path(path))

    def state_dict(self) -> dict[str, Any]:
        """Return all records and alarms as lists, dicts, tensors and numbers."""
        return {
            "steps": list(self.steps),
            "history": {n: [s.clone() for s in spectra] for n, spectra in self.history.items()},
            "alarms": [vars(alarm).copy() for alarm in self.alarms],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``; raise a ValueError if its layers differ."""
        history = state_dict["history"]
        if set(history) != set(self.history):
            raise ValueError(
                f"The state must have the layers {list(self.history)}, got {list(history)}."
            )
        self.steps = list(state_dict["steps"])
        self.history = {name: list(history[name]) for name in self.history}
        self.alarms = [CollapseAlarm(**alarm) for alarm in state_dict["alarms"]]
