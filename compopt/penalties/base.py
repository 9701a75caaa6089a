"""What every penalty says of itself, and how it is called by name."""

import inspect
from typing import Any, ClassVar

from torch import Tensor

from compopt._typing import Player


class Penalty:
    """A configured term that one player minimises, called with what it is computed from.

    Subclasses are frozen dataclasses with a ``coefficient``. What they say here is tested: the
    coupling by :func:`~compopt.penalties.mixed_block_norm`, the order by counting derivatives.

    Attributes:
        player: the player that the term is meant for; None for a term on the weights of one
            network, which belongs to that network's player.
        order: highest derivative of the networks that the gradient of the term takes: 0 for a term
            on weights, which evaluates no network, 1 for one on outputs, 2 for one on gradients.
            Inside the loss of a competitive step it is one more.
    """

    player: ClassVar[Player | None]
    order: ClassVar[int]
    __call__: Any

    @property
    def couples(self) -> bool:
        """Whether the term depends on both players, so that it changes the mixed Hessian."""
        return False

    def on(self, **available: Any) -> Tensor:
        """Evaluate on those of the named inputs that the penalty takes.

        A program that reads its penalty from a configuration can offer all that it has.

        Args:
            **available: any of ``critic``, ``module``, ``real``, ``fake``, ``loss``, ... , as the
                penalties name their arguments.

        Returns:
            The term.

        Raises:
            TypeError: if an argument without a default is not among them.

        Example:
            >>> import torch
            >>> from compopt.penalties import R1
            >>> critic = torch.nn.Linear(3, 1)
            >>> R1().on(critic=critic, real=torch.zeros(4, 3), fake=None).shape
            torch.Size([])
        """
        parameters = inspect.signature(type(self).__call__).parameters
        names = list(parameters)[1:]
        missing = [
            name
            for name in names
            if name not in available and parameters[name].default is inspect.Parameter.empty
        ]
        if missing:
            raise TypeError(
                f"{type(self).__name__} must be given {', '.join(f'`{name}`' for name in missing)}."
            )
        result: Tensor = self(**{name: available[name] for name in names if name in available})
        return result


def sign_in_loss(player: Player) -> int:
    """Return the sign with which a term of ``player`` enters a zero-sum loss.

    The max player raises the loss, so a term that it is to lower is subtracted. With
    ``optimizer.step(loss, max_penalty=term)`` there is no sign to think of.
    """
    return 1 if player == "min" else -1
