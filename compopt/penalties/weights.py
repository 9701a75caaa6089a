"""Terms on weights alone: L2, orthogonality, and clipping."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from compopt._checks import check_non_negative, check_positive
from compopt._typing import Player
from compopt.penalties._precision import widened, without_autocast
from compopt.penalties.base import Penalty, configured_first
from compopt.penalties.layers import Layers, effective_weight, filter_rows


def _trainable(module: nn.Module) -> list[Tensor]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"`module` must be a module, got {type(module).__name__}.")
    params: list[Tensor] = [param for param in module.parameters() if param.requires_grad]
    if not params:
        raise ValueError(
            f"`module` ({type(module).__name__}) must have trainable weights; it has none. "
            "Unfreeze them with `requires_grad_(True)`, or leave the penalty out."
        )
    return params


@configured_first
@dataclass(frozen=True)
class L2(Penalty):
    """``coefficient / 2 * sum w^2`` over the weights of a network.

    Its gradient is that of ``weight_decay=coefficient`` in :class:`torch.optim.Adam`, which the
    adaptive step sizes scale; they do not scale the ``weight_decay`` of :class:`compopt.ACGD`. No
    value is customary; the default is a starting point.

    For: the player whose network is given, in published comparisons the critic. Sign: added to the
    loss for the min player, subtracted for the max player. Couples: no. Order: 0. Cost: one pass
    over the weights.

    Attributes:
        coefficient: twice the factor, >= 0.
        biases: whether to include parameters with fewer than two axes (biases, gains).
    """

    player: ClassVar[Player | None] = None
    order: ClassVar[int] = 0

    coefficient: float = 1e-3
    biases: bool = False

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)

    def __call__(self, module: nn.Module) -> Tensor:
        """Return the term for a network."""
        params = [p for p in _trainable(module) if self.biases or p.dim() > 1]
        if not params:
            raise ValueError(
                f"`module` ({type(module).__name__}) must have trainable weights with two axes or "
                "more; it has none. Use `L2(biases=True)`."
            )
        with without_autocast(params[0]):
            return (
                self.coefficient
                / 2
                * torch.stack([widened(p).square().sum() for p in params]).sum()
            )


@configured_first
@dataclass(frozen=True)
class Orthogonal(Penalty):
    """``coefficient * sum over layers |W W^T - I|_F^2``, without the diagonal unless ``diagonal``.

    W has a row for each output filter of a group. Without the diagonal, filters may have any
    length: the form of BigGAN, coefficient 1e-4. BigGAN's released code descends along half the
    gradient of this formula (``2 (W W^T o (1 - I)) W``), so its 1e-4 is 5e-5 here. With the
    diagonal it is soft orthogonality. If there are more filters than entries per filter, they
    cannot be orthogonal, and with the diagonal the term cannot reach zero.

    For: the player whose network is given, in BigGAN the generator. Sign: added to the loss for the
    min player, subtracted for the max player. Couples: no. Order: 0. Cost: one product of each
    layer's rows with themselves.

    Attributes:
        coefficient: factor >= 0.
        diagonal: whether to penalise row lengths other than 1.
        layers: the penalised layers.

    References:
        Brock, Donahue and Simonyan (2019), Section 3.1. https://arxiv.org/abs/1809.11096
    """

    player: ClassVar[Player | None] = None
    order: ClassVar[int] = 0

    coefficient: float = 1e-4
    diagonal: bool = False
    layers: Layers = field(default_factory=lambda: Layers(kinds=("conv", "linear")))

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)

    def __call__(self, module: nn.Module) -> Tensor:
        """Return the term for a network."""
        terms = [
            self._of(filter_rows(layer, effective_weight(layer, name)))
            for name, layer in self.layers.of(module, trainable=True).items()
        ]
        return self.coefficient * torch.stack(terms).sum()

    def _of(self, rows: Tensor) -> Tensor:
        with without_autocast(rows):
            rows = widened(rows)
            gram = rows @ rows.mT
            eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
            error = gram - eye if self.diagonal else gram * (1 - eye)
            return error.square().sum()


@dataclass(frozen=True)
class WeightClipping:
    """Clamps all trainable parameters of a network to [-limit, limit], in place.

    This is a projection, not a penalty: call it after the optimizer's step. It keeps the critic of
    a Wasserstein GAN Lipschitz, with an unknown constant.

    For: the critic. Paper: limit 0.01 with RMSprop and five critic steps. Cost: one pass over the
    weights.

    Attributes:
        limit: largest absolute value, > 0.

    References:
        Arjovsky, Chintala and Bottou (2017), algorithm 1. https://arxiv.org/abs/1701.07875
    """

    limit: float = 0.01

    def __post_init__(self) -> None:
        check_positive("limit", self.limit)

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> None:
        """Clamp the parameters of ``module``."""
        for param in _trainable(module):
            param.clamp_(-self.limit, self.limit)
