"""Step sizes of a player, with what a solve needs of them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepSizes:
    """Step sizes as a diagonal matrix H = S^2, and the player's gradient g weighed with them.

    Attributes:
        values: [n] H, >= 0.
        root: [n] S, of the player whose move is solved for; None of its opponent.
        weighed_grad: [n] ``sign S g`` of the player whose move is solved for, with the sign that
            its objective has in the loss; ``H g`` of its opponent. A solver may write here.
    """

    values: Tensor
    root: Tensor | None
    weighed_grad: Tensor

    @classmethod
    def weighing(
        cls,
        values: Tensor,
        grad: Tensor,
        sign: int | None,
        root: Tensor | None = None,
        weighed_grad: Tensor | None = None,
    ) -> "StepSizes":
        """Form what belongs to ``values`` [n] and ``grad`` [n].

        Args:
            values: of the step sizes.
            grad: of the player's own objective. Not modified.
            sign: 1 or -1 if the player's move is solved for, None if not.
            root: [n] where to write the roots, if there is a sign; a new vector if None.
            weighed_grad: [n] where to write the weighed gradient; a new vector if None.
        """
        if sign is None:
            return cls(values, None, torch.mul(values, grad, out=weighed_grad))
        root = torch.sqrt(values, out=root)
        weighed_grad = torch.mul(root, grad, out=weighed_grad)
        return cls(values, root, weighed_grad.neg_() if sign < 0 else weighed_grad)

    def plain_step(self, grad: Tensor) -> Tensor:
        """Return the gradient step ``-H grad``: what a failed solve falls back to."""
        return (self.values * grad).neg_()
