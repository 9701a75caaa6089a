"""Linear operators: what multiplies."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compopt._checks import check_vector
from compopt.kernels import partial_dot

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator


class LinearOperator(ABC):
    """A square matrix known through its product with a vector.

    Attributes:
        size: number of rows and of columns.
        dtype: of the vectors it multiplies.
        device: of the vectors it multiplies.
        is_positive_definite: whether the operator is symmetric positive definite. It is declared,
            not checked; :class:`~compopt.solvers.ConjugateGradient` refuses operators without it.
    """

    is_positive_definite: bool = False

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size = size
        self.dtype = dtype
        self.device = device

    @abstractmethod
    def matvec(self, vector: Tensor) -> Tensor:
        """Return the product with ``vector`` [size], as a new vector [size]."""

    def new_vector(self, name: str) -> Tensor:
        """Return a vector [size] for a solver to work in, of any content.

        An operator may hand out the same memory when it is asked for ``name`` again.
        """
        return torch.empty(self.size, dtype=self.dtype, device=self.device)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which a solver is to act; those given where it works alone.

        Where several processes share an operator, its products are operations of all of them: they
        must make equally many, so what a solver decides on the host goes through here first.
        """
        return flags

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors from numbers [...] about those that a solver sees.

        They are the same unless each of several processes keeps a part of every vector.
        """
        return partials

    def to_dense(self) -> Tensor:
        """Return the matrix [size, size]. For tests and small problems.

        Cost: ``size`` products.
        """
        columns = torch.eye(self.size, dtype=self.dtype, device=self.device)
        if not self.size:
            return columns
        return torch.stack([self.matvec(column) for column in columns], dim=1)

    def to_scipy(self) -> "ScipyLinearOperator":
        """Return the operator for :mod:`scipy.sparse.linalg`, which works on NumPy arrays.

        Every product copies its vector to this operator's device and the result back. A complex
        vector takes two products, of its real and its imaginary part.
        """
        from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator

        def matvec(array: Any) -> Any:
            if array.dtype.kind == "c":
                return matvec(array.real) + 1j * matvec(array.imag)
            vector = torch.as_tensor(array.reshape(-1), dtype=self.dtype, device=self.device)
            return self.matvec(vector).cpu().numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        symmetric = {"rmatvec": matvec} if self.is_positive_definite else {}
        return ScipyLinearOperator((self.size, self.size), matvec=matvec, dtype=dtype, **symmetric)


class CoupledOperator(LinearOperator):
    """``A = I + F H G``, known through its factors ``F`` and ``G``.

    ``H`` is diagonal and not negative. Where ``G = F^T`` the operator is symmetric positive
    definite with eigenvalues of at least 1, which ``is_positive_definite`` declares. It is what
    remains of the coupled system

        x = b - F y,     y = H (c + G x)

    once y is eliminated: ``A x = b - F H c``.

    Attributes:
        inner_size: number of columns of ``F``.
        inner_dtype: of vectors [inner_size].
        watched: None, or a list that takes, for the first two products with a factor, whether what
            was multiplied and what came out have an entry other than zero; 0-dim.
    """

    def __init__(
        self,
        size: int,
        inner_size: int,
        dtype: torch.dtype,
        device: torch.device,
        inner_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(size, dtype, device)
        self.inner_size = inner_size
        self.inner_dtype = dtype if inner_dtype is None else inner_dtype
        self.watched: list[tuple[Tensor, Tensor]] | None = None

    @abstractmethod
    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``F @ inner`` [size], in ``out`` or as a new vector."""

    @abstractmethod
    def response(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``G @ vector`` [inner_size], in ``out`` or as a new vector."""

    @abstractmethod
    def weigh(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ inner`` [inner_size], in ``out`` or as a new vector."""

    def reaction(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ G @ vector`` [inner_size], in ``out`` or as a new vector."""
        return self.weigh(self.response(vector), out)

    def reaction_energy(self, vector: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return :meth:`reaction` and, where ``G = F^T``, the form ``vector^T F H F^T vector``.

        The quadratic form, 0-dim, of the operator itself is larger by ``|vector|^2``: known without
        the product with ``F`` that :meth:`matvec` would take.
        """
        image = self.response(vector, self.new_inner("image"))
        reaction = self.weigh(image, out)
        return reaction, self.total(torch.dot(reaction, image))

    def add_factor(self, vector: Tensor, inner: Tensor, out: Tensor) -> Tensor:
        """Write ``vector + F @ inner`` to ``out`` [size].

        Returns:
            Numbers [k >= 1] whose sum is the inner product of ``vector`` and ``out``, of the parts
            that this process keeps.
        """
        self.factor(inner, out).add_(vector)
        return partial_dot(vector, out)

    def new_inner(self, name: str) -> Tensor:
        """Return a vector [inner_size] for a solver to work in, as :meth:`new_vector` does."""
        return torch.empty(self.inner_size, dtype=self.inner_dtype, device=self.device)

    def _watch(self, vector: Tensor, product: Tensor) -> Tensor:
        """Return ``product``, of ``vector`` with a factor, after a look at it if it is watched."""
        if self.watched is not None and len(self.watched) < 2:
            self.watched.append((vector.any(), product.any()))
        return product

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``vector + F @ H @ G @ vector``."""
        return self.factor(self.reaction(vector)).add_(vector)


class MatrixOperator(LinearOperator):
    """An explicit square matrix as an operator.

    Args:
        matrix: [size, size]. Not copied.
        positive_definite: whether the matrix is symmetric positive definite. Not checked.
    """

    def __init__(self, matrix: Tensor, *, positive_definite: bool = False) -> None:
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`matrix` must be square, got shape {tuple(matrix.shape)}.")
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self.matrix = matrix
        self.is_positive_definite = positive_definite

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``matrix @ vector``."""
        check_vector("vector", vector, self.size)
        return self.matrix @ vector
