"""The scalars of a running conjugate gradient iteration."""

import torch
from torch import Tensor

GAMMA, ALPHA, BETA, WORST_FALL, BREAKDOWN, FINITE, NUM_ITER, SCALE = range(8)


class CGState:
    """The scalars of a running conjugate gradient iteration, in one vector on the device.

    No method reads a value on the host.

    Attributes:
        values: [8] squared residual norm; step length and direction factor of the last
            iteration; largest factor by which an iteration has changed the squared residual norm
            (NaN before the first); whether the operator was found not to be positive definite;
            whether all was finite; iterations that moved; in which unit of the iterates residual
            and direction are. A system whose residual is exactly zero is frozen.
    """

    def __init__(self, gamma: Tensor, scale: Tensor | None = None) -> None:
        """Begin with the squared residual norm ``gamma``, 0-dim; the dtype is its own.

        Args:
            gamma: of the residual in units of ``scale``.
            scale: 0-dim, the unit of residual and direction; one if None.
        """
        zero = torch.zeros_like(gamma)
        nan = torch.full_like(gamma, torch.nan)
        finite = torch.isfinite(gamma).to(gamma.dtype)
        unit = torch.ones_like(gamma) if scale is None else scale
        self.values = torch.stack([gamma, zero, zero, nan, zero, finite, zero, unit])
        # What `reference.py` has computed from a curvature, for its next call.
        self.step: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    @property
    def gamma(self) -> Tensor:
        """0-dim, squared norm of the residual; after a failure, that of the last good iterate."""
        return self.values[GAMMA]

    @property
    def next_gamma(self) -> Tensor:
        """0-dim, the squared residual norm to expect of an iteration; NaN before the first."""
        return self.values[GAMMA] * self.values[WORST_FALL]

    @property
    def breakdown(self) -> Tensor:
        """0-dim boolean, whether a direction of non-positive curvature was met."""
        return self.values[BREAKDOWN] > 0

    @property
    def finite(self) -> Tensor:
        """0-dim boolean, whether residuals and curvatures were all finite."""
        return self.values[FINITE] > 0

    @property
    def num_iter(self) -> Tensor:
        """0-dim, iterations that moved. A frozen system makes no more."""
        return self.values[NUM_ITER]
