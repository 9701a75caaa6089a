"""First derivatives of a game, and products with its second derivatives."""

from compopt.derivatives.autograd import Grads, differentiate_once
from compopt.derivatives.gradients import differentiate, loss_gradients
from compopt.derivatives.products import Derivatives

__all__ = [
    "Derivatives",
    "Grads",
    "differentiate",
    "differentiate_once",
    "loss_gradients",
]
