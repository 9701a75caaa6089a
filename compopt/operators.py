"""Linear operators of competitive optimization."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch import Tensor

from compopt._checks import check_vector
from compopt._flat import Workspace, split_players
from compopt._typing import OPPONENT, K, Player
from compopt.derivatives import Derivatives
from compopt.distributed import Placement
from compopt.kernels import partial_dot
from compopt.kernels._numbers import is_free_to_read

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator

__all__ = [
    "CoupledOperator",
    "LinearOperator",
    "MatrixOperator",
    "PolymatrixOperator",
    "TwoPlayerOperator",
]


class LinearOperator(ABC):
    """A square matrix that is given by its product with a vector.

    Attributes:
        size: number of rows and of columns.
        dtype: dtype of the vectors.
        device: device of the vectors.
        is_positive_definite: whether the operator is symmetric positive definite. Declared, not
            checked; :class:`~compopt.solvers.ConjugateGradient` requires it.
        is_on_host: whether solvers may read numbers, because that costs nothing, as on the CPU.

    Args:
        size: number of rows and of columns.
        dtype: dtype of the vectors.
        device: device of the vectors.
        placement: provides :meth:`agree` and :meth:`total`; None for a single process.
    """

    is_positive_definite: bool = False

    def __init__(
        self,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        placement: Placement | None = None,
    ) -> None:
        self.size = size
        self.dtype = dtype
        self.device = device
        self.is_on_host = is_free_to_read(device)
        if placement is not None:
            self.agree = placement.agree  # type: ignore[method-assign]
            self.total = placement.total  # type: ignore[method-assign]

    @abstractmethod
    def matvec(self, vector: Tensor) -> Tensor:
        """Return the product with ``vector`` [size], as a new vector [size]."""

    def new_vector(self, name: str) -> Tensor:
        """Return a work vector [size] for a solver, with arbitrary content.

        Calls with the same ``name`` may return the same memory.
        """
        return torch.empty(self.size, dtype=self.dtype, device=self.device)

    def agree(self, flags: Any) -> Any:
        """Return, on the host, flags that are equal on all processes.

        A single process gets ``flags`` back. A product of a shared operator involves all processes,
        so all must make equally many: solvers pass every decision on the host through here.
        """
        return flags.tolist() if isinstance(flags, Tensor) else flags

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors, given the sums [...] over this process's parts.

        They are equal unless vectors are sharded over processes.
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

        Each product copies the vector to the operator's device and the result back. A complex
        vector takes two products, for its real and its imaginary part.
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
    """``A = I + F H G``, given by products with ``F`` and ``G``.

    ``H`` is diagonal and non-negative. If ``G = F^T``, the operator is symmetric positive definite
    with eigenvalues of at least 1, and ``is_positive_definite`` is True. Eliminating y from the
    coupled system

        x = b - F y,     y = H (c + G x)

    gives ``A x = b - F H c``.

    Attributes:
        inner_size: number of columns of ``F``.
        inner_dtype: dtype of vectors [inner_size].
        watched: None, or a list that receives two 0-dim flags for each of the first two products
            with a factor: whether the vector, and whether the product, has a nonzero entry.
    """

    def __init__(
        self,
        size: int,
        inner_size: int,
        dtype: torch.dtype,
        device: torch.device,
        inner_dtype: torch.dtype | None = None,
        placement: Placement | None = None,
    ) -> None:
        super().__init__(size, dtype, device, placement)
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
    def scale_inner(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ inner`` [inner_size], in ``out`` or as a new vector."""

    def reaction(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ G @ vector`` [inner_size], in ``out`` or as a new vector."""
        return self.scale_inner(self.response(vector), out)

    def reaction_energy(self, vector: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return :meth:`reaction` and, if ``G = F^T``, the 0-dim ``vector^T F H F^T vector``.

        Adding ``|vector|^2`` gives the quadratic form of the operator, without the product with
        ``F`` that :meth:`matvec` takes.
        """
        image = self.response(vector, self.new_inner("image"))
        reaction = self.scale_inner(image, out)
        return reaction, self.total(torch.dot(reaction, image))

    def add_factor(self, vector: Tensor, inner: Tensor, out: Tensor) -> Tensor:
        """Write ``vector + F @ inner`` to ``out`` [size].

        Returns:
            Partial sums [k >= 1] of the inner product of ``vector`` and ``out``, over the parts
            that this process keeps.
        """
        self.factor(inner, out).add_(vector)
        return partial_dot(vector, out)

    def new_inner(self, name: str) -> Tensor:
        """Return a work vector [inner_size] for a solver, as :meth:`new_vector` does."""
        return torch.empty(self.inner_size, dtype=self.inner_dtype, device=self.device)

    def _watch(self, vector: Tensor, product: Tensor) -> Tensor:
        """Return ``product``; record whether ``vector`` and ``product`` have a nonzero entry."""
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


class TwoPlayerOperator(CoupledOperator):
    """``I - S D_12 f H D_21 g S``: the matrix of the linear system for one player's move.

    ``f`` is the solved player's objective and ``g`` the opponent's. ``S`` holds the square roots of
    the solved player's step sizes and ``H`` the opponent's step sizes (both diagonal). The identity
    comes from the player's own cost of moving, the rest from the opponent's reaction.

    In a zero-sum game ``g = -f``, and with ``F = S D_12 f`` the operator is ``I + F H F^T``:
    symmetric, with eigenvalues of at least 1 for any step sizes. In a general-sum game it is
    unsymmetric, and singular for isolated step sizes.

    Let s be the sign of the differentiated loss in the solved player's objective. The factors are
    ``F = s S D_12 f`` and ``G = -s D_21 g S``. In a zero-sum game, both are then products with
    derivatives of the one loss, as a backward pass returns them.

    Args:
        derivatives: products with blocks of second derivatives.
        player: the player whose move is solved for.
        scale: [size of ``player``] S, the square roots of its step sizes.
        opponent_step_sizes: [size of the opponent] H, >= 0.
        workspace: provides the work vectors of solvers; a new one if None.
        may_read: whether solvers may read numbers on devices where that costs nothing.

    References:
        Schäfer and Anandkumar (2019), Section 2 and eq. (4). https://arxiv.org/abs/1905.12103
    """

    def __init__(
        self,
        derivatives: Derivatives[Player],
        player: Player,
        scale: Tensor,
        opponent_step_sizes: Tensor,
        workspace: Workspace | None = None,
        *,
        may_read: bool = True,
    ) -> None:
        self.other = OPPONENT[player]
        layout, inner = derivatives.layouts[player], derivatives.layouts[self.other]
        placement = derivatives.placement
        super().__init__(
            layout.numel, inner.numel, layout.dtype, layout.device, inner.dtype, placement
        )
        self.is_positive_definite = derivatives.is_zero_sum
        self.derivatives = derivatives
        self.player = player
        self.scale = scale
        self.opponent_step_sizes = opponent_step_sizes
        workspace = Workspace() if workspace is None else workspace
        # Solvers reuse the named vectors of the workspace.
        self.new_vector = partial(workspace.vector, layout, player)  # type: ignore[method-assign]
        self.new_inner = partial(workspace.vector, inner, self.other)  # type: ignore[method-assign]
        self.is_on_host = self.is_on_host and may_read
        self._sign = derivatives.signs[player]

    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``F @ inner``. One product."""
        product = self.derivatives.product(
            self.player,
            self.player,
            {self.other: inner},
            factor=self._sign,
            scale=self.scale,
            out=out,
        )
        return product if self.watched is None else self._watch(inner, product)

    def add_factor(self, vector: Tensor, inner: Tensor, out: Tensor) -> Tensor:
        """Write ``vector + F @ inner`` to ``out``, in the pass that gathers. One product."""
        return self.derivatives.add_product(
            self.player,
            self.player,
            {self.other: inner},
            vector,
            out,
            factor=self._sign,
            scale=self.scale,
        )

    def response(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``G @ vector``. One product."""
        return self._response(vector, out, None)

    def reaction(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ G @ vector``. One product, scaled in the pass that gathers."""
        return self._response(vector, out, self.opponent_step_sizes)

    def scale_inner(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ inner``."""
        return torch.mul(self.opponent_step_sizes, inner, out=out)

    def _response(self, vector: Tensor, out: Tensor | None, scale: Tensor | None) -> Tensor:
        product = self.derivatives.product(
            self.other,
            self.other,
            {self.player: vector},
            factor=-self._sign,
            weight=self.scale,
            scale=scale,
            out=out,
            scratch=self.new_vector("scaled"),
        )
        return product if self.watched is None else self._watch(vector, product)


class PolymatrixOperator(LinearOperator, Generic[K]):
    """``I + S H_o S`` on all players' vectors, joined in order.

    ``H_o`` has the blocks ``D_ij L_i`` for ``i != j``; ``S`` holds the square roots of the step
    sizes. The operator is unsymmetric.

    Args:
        derivatives: products with blocks of second derivatives.
        scales: by player, [size of the player] >= 0, the square roots of its step sizes.

    Attributes:
        watched: None, or a list that receives two 0-dim flags for the first product: whether the
            vector, and whether its product with the blocks, has a nonzero entry.

    Cost: a product takes one backward pass per player.
    """

    def __init__(self, derivatives: Derivatives[K], scales: Mapping[K, Tensor]) -> None:
        self.derivatives = derivatives
        self.watched: list[tuple[Tensor, Tensor]] | None = None
        self.scale = self.join(scales)
        size, placement = len(self.scale), derivatives.placement
        super().__init__(size, self.scale.dtype, self.scale.device, placement)

    def join(self, vectors: Mapping[K, Tensor]) -> Tensor:
        """Return the players' vectors as one."""
        return torch.cat([vectors[player] for player in self.derivatives.layouts])

    def split(self, vector: Tensor) -> dict[K, Tensor]:
        """Return the players' parts of a joined vector, as views."""
        return split_players(vector, self.derivatives.layouts)

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``vector + S H_o S @ vector``."""
        products = self.derivatives.interaction(self.split(self.scale * vector))
        product = self.join(products).mul_(self.scale)
        if self.watched is not None and not self.watched:
            self.watched.append((vector.any(), product.any()))
        return product.add_(vector)
