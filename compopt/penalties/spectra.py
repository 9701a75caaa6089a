"""Singular values of a network's layers."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compopt._checks import check_count
from compopt.kernels import power_iteration
from compopt.penalties._precision import widened, without_autocast
from compopt.penalties._random import normal
from compopt.penalties.layers import Layers, underlying, weight_matrix


def weight_matrices(module: nn.Module, layers: Layers) -> dict[str, Tensor]:
    """Return the matrix [n, d] of each chosen layer's trained weight, detached, at least float32.

    Under spectral normalization it is the original weight: dividing it by its norm does not change
    the normalised spectrum.
    """
    return {
        name: widened(weight_matrix(layer, underlying(layer, name).detach()))
        for name, layer in layers.of(module).items()
    }


def batched_svd(matrices: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Return U [n, r], S [r] and V^T [r, d] of each matrix; equal shapes are batched.

    Cost: one SVD call for each distinct shape.
    """
    return {
        name: (left, values, right)
        for names, stack in _stacks(matrices)
        for name, left, values, right in zip(
            names, *torch.linalg.svd(stack, full_matrices=False), strict=True
        )
    }


def singular_values(matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the singular values [r] of each matrix, largest first, differentiably."""
    return {
        name: values
        for names, stack in _stacks(matrices)
        for name, values in zip(names, torch.linalg.svdvals(stack), strict=True)
    }


def _stacks(matrices: Mapping[str, Tensor]) -> list[tuple[list[str], Tensor]]:
    """Return stacks of the matrices of equal shape, dtype and device, with their names."""
    alike: defaultdict[object, list[str]] = defaultdict(list)
    for name, matrix in matrices.items():
        alike[matrix.shape, matrix.dtype, matrix.device].append(name)
    return [(names, torch.stack([matrices[name] for name in names])) for names in alike.values()]


def normalized(values: Tensor) -> Tensor:
    """Return singular values [..., r] divided by the largest; those of a zero matrix stay zero."""
    largest = values[..., :1]
    return values / largest.masked_fill(largest == 0, 1.0)


def block_power_iteration(
    matrix: Tensor,
    num_values: int = 1,
    *,
    num_iter: int = 20,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Estimate the largest singular values without decomposing the matrix.

    Subspace iteration with the matrix and its transpose in turn. The error of the j-th value
    decreases as ``(sigma_{k+1} / sigma_j)^{4 num_iter}`` for k values.

    Args:
        matrix: [n, d]. Not modified, not differentiated.
        num_values: k in 1 .. min(n, d), at most 64 on a device.
        num_iter: number of iterations >= 1.
        start: initial basis [d, k], such as the previous result; None for a random one.
        generator: generator of the random numbers.

    Returns:
        Values [k], largest first, never above the true ones, and the basis V [d, k].

    Cost: ``2 num_iter`` products with k vectors, and as many QR decompositions of k columns.
    """
    if matrix.dim() != 2:
        raise ValueError(f"`matrix` must have shape [n, d], got {tuple(matrix.shape)}.")
    check_count("num_values", num_values, minimum=1)
    check_count("num_iter", num_iter, minimum=1)
    if num_values > min(matrix.shape):
        raise ValueError(
            f"`num_values` must be at most {min(matrix.shape)} for shape {tuple(matrix.shape)}, "
            f"got {num_values}."
        )
    shape = (matrix.shape[1], num_values)
    if start is not None and start.shape != shape:
        raise ValueError(f"`start` must have shape {shape}, got {tuple(start.shape)}.")
    with torch.no_grad(), without_autocast(matrix):
        wide = widened(matrix)
        basis = normal(shape, wide, generator) if start is None else start.to(wide)
        triplets = power_iteration(wide, basis, num_iter)
        return triplets.values, triplets.right
