"""A penalty that is evaluated at every n-th step, with n times its weight."""

from typing import Any

from torch import Tensor

from compopt._checks import check_count
from compopt.penalties.base import Penalty


class Lazy:
    """Returns n times ``penalty`` at the first and then at every n-th call, otherwise None.

    On average over steps the term is the same, at an n-th of the cost. Pass the result, term or
    None, to ``optimizer.step(loss, max_penalty=...)``. Adaptive step sizes see larger gradients at
    every n-th step; StyleGAN2 corrects its learning rate and momenta for that, this class does not.

    Args:
        penalty: any penalty or function that returns a scalar.
        every: n >= 1. StyleGAN2: 16 for R1.

    References:
        Karras et al. (2020), Section 3.1. https://arxiv.org/abs/1912.04958
    """

    def __init__(self, penalty: Penalty, *, every: int) -> None:
        check_count("every", every, minimum=1)
        if not callable(penalty):
            raise TypeError(f"`penalty` must be callable, got {type(penalty).__name__}.")
        self.penalty = penalty
        self.every = every
        self.num_calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """Count a call; return the term at every n-th, else None."""
        is_due = self.num_calls % self.every == 0
        # Count after evaluating the term, so that a failed call can be repeated.
        term: Tensor | None = self.every * self.penalty(*args, **kwargs) if is_due else None
        self.num_calls += 1
        return term

    def state_dict(self) -> dict[str, Any]:
        """Return the number of calls, so that a resumed run evaluates at the same steps."""
        return {"num_calls": self.num_calls}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        check_count("num_calls", state_dict["num_calls"], minimum=0)
        self.num_calls = state_dict["num_calls"]

    def __repr__(self) -> str:
        return f"Lazy({self.penalty!r}, every={self.every})"
