"""First derivatives of a game, and products with its second derivatives."""

from compopt.derivatives.autograd import Grads, differentiate_once, loss_gradients
from compopt.derivatives.gradients import differentiate
from compopt.derivatives.products import Derivatives, split_players

__all__ = [
    "Derivatives",
    "Grads",
    "differentiate",
    "differentiate_once",
    "loss_gradients",
    "split_players",
]
