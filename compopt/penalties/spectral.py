"""Spectral compensation of SR-GAN, as a projection after optimizer steps and as a loss term."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from compopt._checks import check_choice, check_count, check_non_negative, check_share
from compopt._typing import Player
from compopt.penalties._precision import widened, without_autocast
from compopt.penalties.base import Penalty, configured_first
from compopt.penalties.layers import (
    Layers,
    effective_weight,
    output_axis,
    underlying,
    weight_matrix,
)
from compopt.penalties.spectra import batched_svd, normalized, singular_values, weight_matrices

Mode: TypeAlias = Literal["static", "dynamic"]


def num_compensated(rank: int, share: float) -> int:
    """Return how many of ``rank`` singular values are raised to the largest, at least one."""
    return max(1, int(share * rank))


def _check_maxima(maxima: Mapping[str, Tensor], ranks: Mapping[str, int]) -> None:
    given = {name: tuple(values.shape) for name, values in maxima.items()}
    needed = {name: (rank,) for name, rank in ranks.items()}
    if given != needed:
        raise ValueError(
            "The running maxima must have the singular values of the layers, "
            f"{needed}, got {given}. They belong to another network or choice of layers."
        )


class SpectralRegularizer:
    """Writes compensated spectra into a network's weights: call :meth:`step` after each update.

    With the weight as a matrix ``W = U diag(sigma) V^T`` (convolutions [out, rest]) of rank r and
    ``s_k = sigma_k / sigma_1``, every ``every``-th step sets

    - static: ``s_k <- 1`` for ``k <= i = share * r``;
    - dynamic: ``s_k <- gamma_k``, its running maximum over projections and :meth:`observe` calls;

    and W to ``U diag(s) V^T``, with norm 1 as in the paper, or with its previous norm if
    ``normalize`` is False. Singular vectors do not change. This is a projection, not a loss term:
    it has no gradient.

    Paper and released code: ``i = r / 2``, every 5th step, convolutions of the critic, with
    spectral normalization, which makes ``normalize`` irrelevant there (the released dynamic code
    keeps the norm). The released code projects within the critic's loop whenever the generator's
    step is a multiple of 5, so several times in a row with several critic steps; here it projects
    at every fifth call. ``i = 1`` is spectral normalization, ``i = r`` over-constrains. Use static
    for few classes or low resolution and dynamic for many; start dynamic while the spectra are
    still good.

    Under a parametrization with one original (``torch.nn.utils.parametrizations.spectral_norm``)
    the original is written; its power iteration adapts in the next forward passes. Running averages
    and a warm start of the optimizer are kept, although they belong to slightly different weights.

    Args:
        module: the network, usually the critic.
        mode: "static" or "dynamic".
        share: share of the singular values that the static mode sets, in (0, 1].
        every: number of steps between projections >= 1.
        normalize: whether weights get norm 1.
        layers: the layers to project; None is ``Layers()``.

    Raises:
        TypeError, ValueError: if an argument is invalid, or the module has no such layer.

    Cost: a batched SVD at every ``every``-th step; other steps cost nothing.

    References:
        Liu et al. (2019). https://arxiv.org/abs/1908.10999
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mode: Mode = "static",
        share: float = 0.5,
        every: int = 5,
        normalize: bool = True,
        layers: Layers | None = None,
    ) -> None:
        check_choice("mode", mode, ("static", "dynamic"))
        check_share("share", share)
        check_count("every", every, minimum=1)
        self.module = module
        self.mode = mode
        self.share = share
        self.every = every
        self.normalize = normalize
        self.layers = Layers() if layers is None else layers
        self.num_steps = 0
        self.maxima: dict[str, Tensor] = {}
        for name, layer in self.layers.of(module).items():
            underlying(layer, name)

    @torch.no_grad()
    def step(self) -> bool:
        """Count a step, and project at every ``every``-th; return True if it projected.

        Weights change in place, so graphs that saved them cannot be used afterwards.
        """
        self.num_steps += 1
        if self.num_steps % self.every:
            return False
        for name, (left, values, right) in batched_svd(
            weight_matrices(self.module, self.layers)
        ).items():
            target = self._target(name, normalized(values))
            if not self.normalize:
                target = target * values[0]
            # A zero matrix has no singular directions: leave it zero.
            target = torch.where(values[0] > 0, target, 0.0)
            self._write(name, (left * target) @ right)
        return True

    @torch.no_grad()
    def observe(self) -> None:
        """Update the running maxima with the current spectra, without changing weights."""
        values = singular_values(weight_matrices(self.module, self.layers))
        for name, spectrum in values.items():
            self._raise_maxima(name, normalized(spectrum))

    def _target(self, name: str, spectrum: Tensor) -> Tensor:
        if self.mode == "dynamic":
            return self._raise_maxima(name, spectrum)
        target = spectrum.clone()
        target[: num_compensated(len(spectrum), self.share)] = 1.0
        return target

    def _raise_maxima(self, name: str, spectrum: Tensor) -> Tensor:
        before = self.maxima.get(name)
        after = spectrum if before is None else torch.maximum(before.to(spectrum), spectrum)
        self.maxima[name] = after.clone()
        return after

    def _write(self, name: str, matrix: Tensor) -> None:
        layer = self.module.get_submodule(name)
        weight = underlying(layer, name)
        axis = output_axis(layer)
        shape = weight.movedim(axis, 0).shape
        weight.copy_(matrix.reshape(shape).movedim(0, axis))

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the running maxima of each layer."""
        maxima = {name: values.clone() for name, values in self.maxima.items()}
        return {"num_steps": self.num_steps, "maxima": maxima}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``; raise a ValueError if it is from another network."""
        check_count("num_steps", state_dict["num_steps"], minimum=0)
        maxima = state_dict["maxima"]
        if maxima:
            matrices = weight_matrices(self.module, self.layers)
            _check_maxima(maxima, {name: min(m.shape) for name, m in matrices.items()})
        self.num_steps = state_dict["num_steps"]
        self.maxima = {name: values.detach().clone() for name, values in maxima.items()}


@configured_first
@dataclass(frozen=True)
class SpectralPenalty(Penalty):
    """Mean squared distance of normalised singular values from their targets, over layers.

    With ``s_k = sigma_k / sigma_1``, the static term is
    ``coefficient * sum over layers mean_{k <= i} (1 - s_k)^2`` with ``i = share * r``. Given
    running maxima, it is ``coefficient * sum over layers mean_k max(gamma_k - s_k, 0)^2``.
    These are the targets of :class:`SpectralRegularizer` as a loss term. The paper has no such
    term, and there is no customary coefficient.

    Its gradient exists for equal singular values too, but its second derivative does not. A
    competitive step does not need it if the term is passed separately.

    For: the player whose network is given, in the paper the critic. Sign: added to the loss for the
    min player, subtracted for the max player. Couples: no. Order: 0. Cost: an SVD of each layer at
    each step, which for large layers costs more than the step: prefer the projection.

    Attributes:
        coefficient: factor >= 0.
        share: share of the singular values with target 1, in (0, 1].
        layers: the penalised layers.

    References:
        Liu et al. (2019). https://arxiv.org/abs/1908.10999
    """

    player: ClassVar[Player | None] = None
    order: ClassVar[int] = 0

    coefficient: float = 1.0
    share: float = 0.5
    layers: Layers = field(default_factory=Layers)

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)
        check_share("share", self.share)

    def __call__(self, module: nn.Module, maxima: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the term for a network.

        Args:
            module: the network.
            maxima: targets [r] by layer, such as ``SpectralRegularizer.maxima``; None for the
                static term.
        """
        layers = self.layers.of(module, trainable=True)
        matrices = {
            name: widened(weight_matrix(layer, effective_weight(layer, name)))
            for name, layer in layers.items()
        }
        if maxima is not None:
            _check_maxima(maxima, {name: min(matrix.shape) for name, matrix in matrices.items()})
        terms = []
        with without_autocast(next(iter(matrices.values()))):
            for name, values in singular_values(matrices).items():
                spectrum = normalized(values)
                if maxima is None:
                    gap = 1 - spectrum[: num_compensated(len(spectrum), self.share)]
                else:
                    gap = (maxima[name].to(spectrum) - spectrum).clamp(min=0)
                terms.append(gap.square().mean())
            return self.coefficient * torch.stack(terms).sum()
