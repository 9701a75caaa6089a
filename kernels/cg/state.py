"""The scalars of a running conjugate gradient iteration."""

import torch
from torch import Tensor

GAMMA, ALPHA, BETA, WORST_FALL, BREAKDOWN, FINITE, NUM_ITER, SCALE = range(8)


class CGState:
    """The scalars of a running conjugate gradient iteration, in one vector on the device.

    No method reads a value on the host. A system with a residual of exactly zero is frozen.

    Attributes:
        values: [8] squared residual norm; step length and direction factor of the last
            iteration; largest factor by which an iteration has changed the squared residual norm
            (NaN before the first); whether the operator was found not to be positive definite;
            whether residuals and curvatures were all finite; number of iterations that changed
            the iterates; unit of residual and direction.
    """

    def __init__(self, gamma: Tensor, scale: Tensor | None = None) -> None:
        """Start with the squared residual norm ``gamma``, whose dtype all scalars have.

        Args:
            gamma: 0-dim, squared norm of the residual in units of ``scale``.
            scale: 0-dim, unit of residual and direction; one if None.
        """
        zero = torch.zeros_like(gamma)
        nan = torch.full_like(gamma, torch.nan)
        finite = torch.isfinite(gamma).to(gamma.dtype)
        unit = torch.ones_like(gamma) if scale is None else scale
        self.values = torch.stack([gamma, zero, zero, nan, zero, finite, zero, unit])
        # A curvature and the result of `reference._step` for it, to reuse in the next call.
        self.step: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    @property
    def gamma(self) -> Tensor:
        """0-dim, squared norm of the residual; after a failure, that of the last good iterate."""
        return self.values[GAMMA]

    @property
    def next_gamma(self) -> Tensor:
        """0-dim, predicted squared residual norm after one more iteration; NaN before the first."""
        return self.values[GAMMA] * self.values[WORST_FALL]

    @property
    def breakdown(self) -> Tensor:
        """0-dim boolean, whether a direction had non-positive curvature."""
        return self.values[BREAKDOWN] > 0

    @property
    def finite(self) -> Tensor:
        """0-dim boolean, whether residuals and curvatures were all finite."""
        return self.values[FINITE] > 0

    @property
    def num_iter(self) -> Tensor:
        """0-dim, number of iterations that changed the iterates. Constant for a frozen system."""
        return self.values[NUM_ITER]
