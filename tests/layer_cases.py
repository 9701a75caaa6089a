"""Every kernel of layers and penalties as data: inputs of any size, and all its results."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from math import isqrt
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from compopt.kernels import activations, batch_norm, layer_norm, linear, penalties

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class LayerCase:
    """Kernels that belong together.

    Attributes:
        name: of the case.
        operation: package of its implementations.
        shape: of the large inputs, for a number of elements.
        inputs: tensors of a shape and dtype.
        results: all results of a form, given inputs in whose tensors nothing is to be written.
        kernels: that the Triton form launches.
        smallest: number of elements for which the layer is defined.
    """

    name: str
    operation: ModuleType
    shape: Callable[[int], tuple[int, ...]]
    inputs: Callable[[tuple[int, ...], torch.dtype], Tensors]
    results: Callable[[Any, Tensors], list[Tensor]]
    kernels: frozenset[str]
    smallest: int = 0

    @property
    def form(self) -> Any:
        """The module with the Triton form."""
        return import_module(f"{self.operation.__name__}.triton")

    @property
    def plain(self) -> Any:
        """The module with the plain form."""
        return import_module(f"{self.operation.__name__}.reference")


def _random(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def _vectors(dtype: torch.dtype, names: str, *shape: int) -> Tensors:
    return {name: _random(dtype, *shape) for name in names.split()}


def _statistics(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _norm_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> Tensors:
    per_channel = _vectors(_statistics(dtype), "weight bias v_weight v_bias", shape[1])
    return _vectors(dtype, "x v grad", *shape) | per_channel


def _batch_norm(form: Any, given: Tensors, slope: float = 0.2) -> list[Tensor]:
    x, weight = given["x"], given["weight"]
    y, mean, invstd = form.batch_norm_forward(
        x, weight, given["bias"], None, None, 0.1, 1e-3, slope
    )
    # Not each form's own output: a rounding at zero would decide on which side an entry lies.
    saved = x, given.setdefault("y", y), weight, mean, invstd, slope
    for_x, for_weight, for_bias = form.batch_norm_backward(given["grad"], saved)
    tangent, sums = form.batch_norm_tangent(given["v"], given["v_weight"], given["v_bias"], saved)
    curvature = form.batch_norm_curvature(
        given["v"], given["v_weight"], sums, given["grad"], for_weight, for_bias, saved
    )
    return [y, mean, invstd, for_x, for_weight, for_bias, tangent, sums, *curvature]


def _layer_norm(form: Any, given: Tensors) -> list[Tensor]:
    x, weight = given["x"], given["weight"]
    y, mean, invstd = form.layer_norm_forward(x, weight, given["bias"], 1, 1e-3)
    saved = x, weight, mean, invstd, 1
    gradients = form.layer_norm_backward(given["grad"], saved)
    tangent, projected = form.layer_norm_tangent(
        given["v"], given["v_weight"], given["v_bias"], saved
    )
    curvature = form.layer_norm_curvature(
        given["v"], given["v_weight"], projected, given["grad"], saved
    )
    return [y, mean, invstd, *gradients, tangent, projected, *curvature]


def _activation_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> Tensors:
    return _vectors(dtype, "x v grad", *shape) | _vectors(dtype, "bias v_bias", shape[1])


def _activation(kind: str) -> Callable[[Any, Tensors], list[Tensor]]:
    def results(form: Any, given: Tensors) -> list[Tensor]:
        x, bias = given["x"], given["bias"]
        options = activations.reference.Activation(kind, 0.2)
        y = form.bias_act_forward(x, bias, options)
        source = given.setdefault("y", y) if kind in activations.reference.FROM_OUTPUT else x
        return [
            y,
            *form.bias_act_backward(given["grad"], source, bias, options),
            form.bias_act_tangent(given["v"], given["v_bias"], source, bias, options),
            *form.bias_act_curvature(
                given["v"], given["v_bias"], given["grad"], source, bias, options
            ),
        ]

    return results


def _linear_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> Tensors:
    rows, cols = shape
    large = _vectors(dtype, "x_dot x", rows, cols)
    return large | _vectors(dtype, "weight weight_dot", 3, cols) | _vectors(dtype, "bias_dot", 3)


def _linear(form: Any, given: Tensors) -> list[Tensor]:
    names = ("x_dot", "weight", "x", "weight_dot", "bias_dot")
    return [form.linear_tangent(*(given[name] for name in names))]


def _matrix_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> Tensors:
    factor = torch.tensor(0.7, dtype=_statistics(dtype))
    return {"weight": _random(dtype, *shape), "grad": factor}


def _diversity(form: Any, given: Tensors) -> list[Tensor]:
    # Thresholds that no cosine is near but one that hardly counts.
    weight, taus = given["weight"], (0.0, 2.0)
    value, inverse_norms = form.diversity_forward(weight, *taus)
    given.setdefault("inverse_norms", inverse_norms)
    grad = form.diversity_backward(given["grad"], weight, given["inverse_norms"], *taus)
    return [value, inverse_norms, grad]


def _product_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> Tensors:
    return {"weight": _random(dtype, *shape), "block": _random(dtype, shape[1], 3)}


def _cases() -> Iterator[LayerCase]:
    sums = "channel_sums_kernel"
    whole = frozenset({sums, "normalize_kernel", "derivative_kernel"})
    batch = _norm_inputs, _batch_norm, whole
    # Two entries are the fewest that have a variance.
    for layout, shape in {
        "columns": lambda n: (n, 1),
        "rows": lambda n: (1, 1, n),
        "images": lambda n: (2, 3, 3, n // 18),
    }.items():
        yield LayerCase(f"batch norm {layout}", batch_norm, shape, *batch, smallest=2)
    yield LayerCase(
        "layer norm",
        layer_norm,
        # A program holds at most 16,384 entries of a row.
        lambda n: (1, n) if 0 < n <= 16_384 else (n // 13_107, 13_107),
        _norm_inputs,
        _layer_norm,
        frozenset({"layer_norm_kernel"}),
    )
    for kind in activations.reference.ACTIVATIONS:
        yield LayerCase(
            kind,
            activations,
            lambda n: (n, 1) if n % 3 else (n // 3, 3),
            _activation_inputs,
            _activation(kind),
            frozenset({"bias_act_kernel", sums}),
        )
    tall_or_wide = {"tall": lambda n: (n, 1), "wide": lambda n: (1, n)}
    for layout, shape in tall_or_wide.items():
        yield LayerCase(
            f"linear tangent {layout}",
            linear,
            shape,
            _linear_inputs,
            _linear,
            frozenset({"linear_tangent_kernel"}),
        )
        yield LayerCase(
            f"gram product {layout}",
            penalties,
            shape,
            _product_inputs,
            lambda form, given: list(form.gram_product(given["weight"], given["block"])),
            frozenset({"gram_product_kernel"}),
        )
    yield LayerCase(
        "diversity",
        penalties,
        # Its cost grows with the square of the rows.
        lambda n: (min(isqrt(n), 70), n // min(isqrt(n), 70) if n else 3),
        _matrix_inputs,
        _diversity,
        frozenset({"gram_strip_kernel"}),
    )


CASES = {case.name: case for case in _cases()}
