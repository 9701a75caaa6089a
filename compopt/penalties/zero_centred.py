"""R1 and R2: small gradients on real and on fake samples."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compopt._checks import check_non_negative
from compopt._typing import Player
from compopt.penalties._samples import Critic, check_samples
from compopt.penalties.base import Penalty, configured_first
from compopt.penalties.gradient import gradient_penalty


@configured_first
@dataclass(frozen=True)
class R1(Penalty):
    """``coefficient / 2 * mean |grad D(x)|^2`` on real samples.

    Paper: coefficient 10. StyleGAN2: 10, at every 16th step with 16 times the weight
    (:class:`~compopt.penalties.Lazy`).

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: no; real
    samples are constants. Order: 2. Cost: :func:`gradient_penalty`, without a root.

    Attributes:
        coefficient: twice the factor, >= 0.

    References:
        Mescheder, Geiger and Nowozin (2018), eq. (9). https://arxiv.org/abs/1801.04406
    """

    player: ClassVar[Player | None] = "max"
    order: ClassVar[int] = 2

    coefficient: float = 10.0

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)

    def __call__(self, critic: Critic, real: Tensor) -> Tensor:
        """Return the term for samples ``real`` [n, ...]."""
        points = check_samples("real", real).detach()
        return self.coefficient / 2 * gradient_penalty(critic, points, target=0.0)


@configured_first
@dataclass(frozen=True)
class R2(Penalty):
    """``coefficient / 2 * mean |grad D(G(z))|^2`` on fake samples.

    Paper: coefficient 10, beside or instead of :class:`R1`.

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: no with
    ``detach``; yes without, because the generator then affects the term through the fakes. Order:
    2, so 3 for an attached term in a competitive loss. Cost: :func:`gradient_penalty`.

    Attributes:
        coefficient: twice the factor, >= 0.
        detach: whether fakes are constants.

    References:
        Mescheder, Geiger and Nowozin (2018), eq. (10). https://arxiv.org/abs/1801.04406
    """

    player: ClassVar[Player | None] = "max"
    order: ClassVar[int] = 2

    coefficient: float = 10.0
    detach: bool = True

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)

    @property
    def couples(self) -> bool:
        """Whether fakes keep their graph."""
        return not self.detach

    def __call__(self, critic: Critic, fake: Tensor) -> Tensor:
        """Return the term for samples ``fake`` [n, ...]."""
        points = check_samples("fake", fake)
        points = points.detach() if self.detach else points
        return self.coefficient / 2 * gradient_penalty(critic, points, target=0.0)
