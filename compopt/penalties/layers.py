"""Choose the layers of a network that a penalty acts on, and reshape weights to matrices."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from compopt._checks import check_choice, check_count

Kind: TypeAlias = Literal["conv", "linear"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS: dict[Kind, tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED),
    "linear": (nn.Linear,),
}


@dataclass(frozen=True)
class Layers:
    """A choice among the layers of a network.

    Attributes:
        kinds: "conv" (1-D to 3-D, transposed or not), "linear", or both.
        skip: qualified names, as in ``named_modules()``, of layers to leave out.
        image_channels: leave out convolutions with that many input or output channels, which read
            or write the image; None keeps them.
    """

    kinds: tuple[Kind, ...] = ("conv",)
    skip: tuple[str, ...] = ()
    image_channels: int | None = None

    def __post_init__(self) -> None:
        for name in ("kinds", "skip"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"`{name}` must be a tuple, got {getattr(self, name)!r}.")
        if not self.kinds:
            raise ValueError(f"`kinds` must name one of {', '.join(map(repr, KINDS))}, got none.")
        for kind in self.kinds:
            check_choice("kinds", kind, KINDS)
        if self.image_channels is not None:
            check_count("image_channels", self.image_channels, minimum=1)

    def of(self, module: nn.Module, *, trainable: bool = False) -> dict[str, nn.Module]:
        """Return the chosen layers by qualified name.

        Args:
            module: the network, or one layer (its name is then the empty string).
            trainable: whether to leave out layers whose weights are frozen.

        Raises:
            TypeError: if ``module`` is not a module.
            ValueError: if no layer is left or a name in ``skip`` is unknown.
        """
        if not isinstance(module, nn.Module):
            raise TypeError(f"`module` must be a module, got {type(module).__name__}.")
        what = f"`module` ({type(module).__name__})"
        kinds = tuple(cls for kind in self.kinds for cls in KINDS[kind])
        found = {n: layer for n, layer in module.named_modules() if isinstance(layer, kinds)}
        listed = " or ".join(self.kinds)
        if not found:
            raise ValueError(
                f"{what} must have a {listed} layer for this penalty; it has none. "
                'Choose others with `Layers(kinds=("conv", "linear"))`.'
            )
        unknown = sorted(set(self.skip) - {name for name, _ in module.named_modules()})
        if unknown:
            raise ValueError(f"`skip` must name modules of {what}, got {unknown}.")
        chosen = {
            name: layer
            for name, layer in found.items()
            if name not in self.skip and not self._touches_image(layer)
        }
        if not chosen:
            raise ValueError(f"{what} has {listed} layers, but `Layers` leaves all of them out.")
        if trainable:
            chosen = {n: layer for n, layer in chosen.items() if underlying(layer, n).requires_grad}
            if not chosen:
                raise ValueError(
                    f"{what} must have trainable weights in its {listed} layers; all are frozen. "
                    "Unfreeze them with `requires_grad_(True)`, or leave the penalty out."
                )
        return chosen

    def _touches_image(self, layer: nn.Module) -> bool:
        if self.image_channels is None or not isinstance(layer, KINDS["conv"]):
            return False
        return self.image_channels in (layer.in_channels, layer.out_channels)


def underlying(layer: nn.Module, name: str = "") -> Tensor:
    """Return the trained parameter of the layer's weight.

    This is the weight itself, or the original of a parametrization with one original, such as
    ``torch.nn.utils.parametrizations.spectral_norm``. Parametrizations are not evaluated, so power
    iterations do not advance.

    Raises:
        ValueError: if there is no such parameter.
    """
    own = dict(layer.named_parameters(recurse=False))
    if "weight" in own:
        return own["weight"]
    if parametrize.is_parametrized(layer, "weight"):
        parts = cast(nn.ModuleDict, layer.parametrizations)["weight"]
        originals: dict[str, Tensor] = dict(parts.named_parameters(recurse=False))
        if set(originals) == {"original"}:
            return originals["original"]
    # The parameter that the older `torch.nn.utils.spectral_norm` registers.
    if "weight_orig" in own:
        return own["weight_orig"]
    raise ValueError(
        f"Layer {name!r} ({type(layer).__name__}) must have a weight, or one original under a "
        f"parametrization; it has {sorted(own) or 'no parameter of its own'}. Leave it out with "
        f"`Layers(skip=({name!r},))`."
    )


@contextmanager
def _frozen(layer: nn.Module) -> Iterator[None]:
    """Put parametrizations in eval mode, so that buffers such as power iterations do not change."""
    parts = cast(nn.ModuleDict, layer.parametrizations)["weight"]
    states = {part: part.training for part in parts.modules()}
    try:
        for part in states:
            part.training = False
        yield
    finally:
        for part, training in states.items():
            part.training = training


def effective_weight(layer: nn.Module, name: str = "") -> Tensor:
    """Return the weight that the layer multiplies with, as a function of the trained parameter.

    Parametrizations are evaluated, but their buffers do not change.
    """
    if parametrize.is_parametrized(layer, "weight"):
        with _frozen(layer):
            weight = layer.weight
        return cast(Tensor, weight)
    return underlying(layer, name)


def weight_matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return ``weight`` as a matrix [n, d] with a row for each output, as for spectral norms.

    Convolutions are reshaped as by ``torch.nn.utils.parametrizations.spectral_norm``: this is not
    the matrix of the convolution as a linear map. Transposed convolutions have their outputs in
    axis 1, divided by the number of groups.
    """
    return weight.movedim(output_axis(layer), 0).flatten(1)


def output_axis(layer: nn.Module) -> int:
    """Return the output axis of the layer's weight."""
    return 1 if isinstance(layer, TRANSPOSED) else 0


def filter_rows(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return the filters as rows [groups, n, d]: n outputs per group, d entries per filter.

    Filters of different groups read different inputs and are not comparable, so each group is a
    separate matrix.
    """
    groups = getattr(layer, "groups", 1)
    split = weight.reshape(groups, -1, *weight.shape[1:])
    if isinstance(layer, TRANSPOSED):
        # The weight has shape [in, out / groups, ...] with groups consecutive in the first axis.
        return split.movedim(2, 1).flatten(2)
    return split.flatten(2)
