"""The steps of optimizers that follow the gradient field, in the formulas of their papers.

Each takes a :class:`FieldStep` of a quadratic game, whose vectors join both players' moving entries
and whose Jacobian is a matrix, and returns the move.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FieldStep:
    """Where a step starts from.

    Attributes:
        w: the parameters.
        raw: the field without penalties and clipping, as a function of them.
        xi: the field that the optimizer sees.
        jacobian: of the field.
        is_min: which entries are the min player's.
        option: gives the hyperparameter of a name, for each entry.
        memory: vectors kept from step to step; zeros at first.
        num_steps: of each entry so far.
        optimizer: for options that groups do not have.
    """

    w: Tensor
    raw: Callable[[Tensor], Tensor]
    xi: Callable[[Tensor], Tensor]
    jacobian: Tensor
    is_min: Tensor
    option: Callable[[str], Tensor]
    memory: dict[str, Tensor]
    num_steps: Tensor
    optimizer: Any

    @property
    def lr(self) -> Tensor:
        return self.option("lr")

    @property
    def interaction(self) -> Tensor:
        """The Jacobian without its diagonal blocks."""
        other = self.is_min[:, None] ^ self.is_min[None, :]
        return self.jacobian * other

    @property
    def expected_step(self) -> Tensor:
        given = self.option("interaction")
        return torch.where(given.isnan(), self.lr, given)

    def adam(self, grad: Tensor, number: Tensor) -> Tensor:
        """Take ``grad`` into the moments and return the move, without its sign."""
        beta1, beta2 = self.option("beta1"), self.option("beta2")
        self.memory["exp_avg"] = beta1 * self.memory["exp_avg"] + (1 - beta1) * grad
        self.memory["exp_avg_sq"] = beta2 * self.memory["exp_avg_sq"] + (1 - beta2) * grad**2
        mean = self.memory["exp_avg"] / (1 - beta1**number)
        square = self.memory["exp_avg_sq"] / (1 - beta2**number)
        return self.lr * mean / (square.sqrt() + self.option("eps"))


def extragradient(s: FieldStep) -> Tensor:
    return -s.lr * s.xi(s.w - s.lr * s.xi(s.w))


def past_extragradient(s: FieldStep) -> Tensor:
    s.memory["past_grad"] = s.xi(s.w - s.lr * s.memory["past_grad"])
    return -s.lr * s.memory["past_grad"]


def ogda(s: FieldStep) -> Tensor:
    past, s.memory["past_grad"] = s.memory["past_grad"], s.xi(s.w)
    return -2 * s.lr * s.memory["past_grad"] + s.lr * past


def extra_adam(s: FieldStep) -> Tensor:
    ahead = s.w - s.adam(s.xi(s.w), 2 * s.num_steps + 1)
    return -s.adam(s.xi(ahead), 2 * s.num_steps + 2)


def optimistic_adam(s: FieldStep) -> Tensor:
    past = s.memory["past_move"]
    s.memory["past_move"] = -s.adam(s.xi(s.w), s.num_steps + 1)
    return 2 * s.memory["past_move"] - past


def consensus(s: FieldStep) -> Tensor:
    xi = s.xi(s.w)
    return -s.lr * (xi + s.option("coefficient") * (s.jacobian.T @ xi))


def sga(s: FieldStep) -> Tensor:
    xi = s.xi(s.w)
    adjustment = (s.jacobian - s.jacobian.T).T @ xi / 2
    if s.optimizer.align:
        descent = s.jacobian.T @ xi
        adjustment = adjustment * torch.sign(
            (xi @ descent) * (adjustment @ descent) / len(xi) + 0.1
        )
    return -s.lr * (xi + s.option("coefficient") * adjustment)


def lcgd(s: FieldStep) -> Tensor:
    xi = s.xi(s.w)
    return -s.lr * (xi - s.interaction @ (s.expected_step * xi))


def lola(s: FieldStep) -> Tensor:
    xi = s.xi(s.w)
    # In a zero-sum game the opponent's gradient of my loss is minus that of its own.
    shaping = s.interaction.T @ (s.expected_step * -s.raw(s.w))
    direction = xi - shaping
    if s.optimizer.anticipate:
        direction = direction - s.interaction @ (s.expected_step * xi)
    return -s.lr * direction


def lead(s: FieldStep) -> Tensor:
    past = s.memory["delta"]
    reaction = s.interaction @ past
    s.memory["delta"] = (
        s.option("momentum") * past - s.lr * s.xi(s.w) - s.option("coupling") * reaction
    )
    return s.memory["delta"]
