"""The collapse monitor: normalised spectra over training; an alarm when they fall or are low."""

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
    """A layer's spectrum fell, or is low, as when training collapses."""


@dataclass(frozen=True)
class CollapseAlarm:
    """A layer's spectrum that fell or is low.

    Attributes:
        layer: qualified name.
        step: at which it was seen.
        level: mean of the normalised singular values watched, now.
        peak: its highest value within the window; the level itself where it was low at once.
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
    """What counts as a collapse.

    A layer's *level* is the mean of its normalised singular values ``sigma_k / sigma_1`` for k from
    2 to ``share * r``. The alarm is raised when the level is below ``low``, or when it is below
    ``floor`` and by ``fall`` or more below its peak within the last ``window`` steps.

    Args:
        share: of the singular values that are watched, in (0, 1].
        low: level below which the alarm is raised at any step; 0 for none.
        floor: level below which a fall raises it.
        fall: least decline from the peak that counts > 0.
        window: number of steps in which the decline counts >= 1.
        warm_up: steps in which a fall does not count. The spectrum of random initial weights is
            flat, and the first steps of any training, good or bad, take it from there.
    """

    share: float = 0.5
    low: float = 0.15
    floor: float = 0.5
    fall: float = 0.1
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
        """Return an alarm if the last of a layer's spectra calls for one.

        Args:
            layer: its name, for the alarm.
            steps: of the records, increasing.
            spectra: a normalised spectrum [r] for each.
        """
        now = steps[-1]
        recent = {
            step: self.level(spectrum)
            for step, spectrum in zip(steps, spectra, strict=True)
            if step >= now - self.window
        }
        level = recent[now]
        if level < self.low:
            return CollapseAlarm(layer, now, level, max(recent.values()))
        peak = max((value for step, value in recent.items() if step >= self.warm_up), default=0.0)
        has_fallen = level < self.floor and peak - level >= self.fall
        return CollapseAlarm(layer, now, level, peak) if has_fallen else None


class CollapseMonitor:
    """Records normalised spectra and warns when they fall or are low.

    The paper's signature of a collapse: in critics with spectral normalization the values
    ``sigma_k / sigma_1`` fall from 0.5 to 0.9 to below 0.5 within about 3000 steps, together with
    the quality of samples. Without spectral normalization the critic of a plain Wasserstein loss
    goes below 0.15 within tens of steps, while all samples become one image. An alarm is raised
    once a layer, by a :class:`CollapseRule`. A slow decline above ``low`` raises none.

    Meant for convolutional critics; a layer of few filters or outputs has too short a spectrum to
    judge by. Rates of alarms over runs that collapse and runs that do not are in the documentation
    of the CIFAR-10 benchmark.

    Args:
        module: the network, mostly the critic.
        layers: which layers.
        rule: what counts as a collapse; that of the paper if None.

    Attributes:
        steps: at which spectra were recorded.
        history: by layer, one spectrum [r] a record, on the CPU.
        alarms: raised so far.

    Cost: a batched SVD a record, and a wait for the device. Record at each evaluation rather than
    each step. Memory grows by one spectrum a layer and record.

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
        """Record the present spectra; return and warn of new alarms.

        Args:
            step: number of the training step, above that of the last record.

        Returns:
            The alarms raised now.

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
        """Draw every layer's spectra over the steps, one panel a layer; needs matplotlib.

        Args:
            path: file to write; its ending chooses the format.

        Returns:
            The path.
        """
        from compopt.penalties.collapse_plot import draw_spectra

        return draw_spectra(self, Path(path))

    def state_dict(self) -> dict[str, Any]:
        """Return everything recorded, in lists, tensors and numbers."""
        return {
            "steps": list(self.steps),
            "history": {n: [s.clone() for s in spectra] for n, spectra in self.history.items()},
            "alarms": [vars(alarm).copy() for alarm in self.alarms],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``; a ValueError says if it is of other layers."""
        history = state_dict["history"]
        if set(history) != set(self.history):
            raise ValueError(
                f"The state must have the layers {list(self.history)}, got {list(history)}."
            )
        self.steps = list(state_dict["steps"])
        self.history = {name: list(history[name]) for name in self.history}
        self.alarms = [CollapseAlarm(**alarm) for alarm in state_dict["alarms"]]
