"""A Gram operator of explicit matrices."""

import torch

from compopt.operators import CoupledOperator


class MatrixGram(CoupledOperator):
    """I + F H F^T of an explicit factor and explicit weights, counting products."""

    def __init__(self, matrix: torch.Tensor, weights: torch.Tensor) -> None:
        super().__init__(*matrix.shape, matrix.dtype, matrix.device)
        self.is_positive_definite = True
        self.matrix = matrix
        self.weights = weights
        self.num_products = 0

    def factor(self, inner, out=None):
        self.num_products += 1
        return torch.mv(self.matrix, inner, out=out)

    def response(self, vector, out=None):
        self.num_products += 1
        return torch.mv(self.matrix.T, vector, out=out)

    def scale_inner(self, inner, out=None):
        return torch.mul(self.weights, inner, out=out)
