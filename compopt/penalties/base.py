"""Base classes of penalties: declared properties, and calls with named inputs."""

import difflib
import functools
import inspect
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from compopt._typing import Player
from compopt.penalties._samples import Critic, check_pair


class Penalty:
    """A configured term that one player minimises; call it with its inputs.

    Subclasses are frozen dataclasses with a ``coefficient``. Tests verify the declared properties:
    the coupling by :func:`~compopt.penalties.mixed_block_norm`, the order by counting derivatives.

    Attributes:
        player: the player that the term is meant for; None for a term on the weights of one
            network, which belongs to that network's player.
        order: highest derivative of the networks that the gradient of the term takes: 0 for a term
            on weights, which evaluates no network, 1 for one on outputs, 2 for one on gradients.
            Inside the loss of a competitive step the order increases by one.
    """

    player: ClassVar[Player | None]
    order: ClassVar[int]
    __call__: Any

    @property
    def couples(self) -> bool:
        """Whether the term depends on both players, so that it changes the mixed Hessian."""
        return False

    def on(self, **available: Any) -> Tensor:
        """Evaluate the penalty on those of the named inputs that it takes.

        Programs that choose a penalty by configuration can pass all inputs that they have.

        Args:
            **available: inputs by the argument names of penalties: ``critic``, ``module``,
                ``real``, ``fake``, ``loss``, ...

        Returns:
            The term.

        Raises:
            TypeError: if a required argument is missing, or if no penalty has an argument of a
                given name.

        Example:
            >>> import torch
            >>> from compopt.penalties import R1
            >>> critic = torch.nn.Linear(3, 1)
            >>> R1().on(critic=critic, real=torch.zeros(4, 3), fake=None).shape
            torch.Size([])
        """
        own: type[Any] = type(self)
        arguments = _arguments(own)
        known = {name for kind in _kinds(Penalty) for name in _arguments(kind)}
        for name in available.keys() - known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean `{close[0]}`?" if close else f"Penalties take {sorted(known)}."
            raise TypeError(f"No penalty takes `{name}`. {hint}")
        missing = [name for name, needed in arguments.items() if needed and name not in available]
        if missing:
            raise TypeError(
                f"{type(self).__name__} must be given {', '.join(f'`{name}`' for name in missing)}."
            )
        result: Tensor = self(**{name: available[name] for name in arguments if name in available})
        return result


class PairPenalty(Penalty):
    """Base of penalties that take real and fake samples.

    Attributes:
        detach: whether fakes are constants.
    """

    detach: bool

    @property
    def couples(self) -> bool:
        """Whether fakes keep their graph."""
        return not self.detach

    def __call__(
        self,
        critic: Critic,
        real: Tensor,
        fake: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the term for samples ``real`` and ``fake`` [n, ...]."""
        real, fake = check_pair(real, fake)
        fake = fake.detach() if self.detach else fake
        return self._term(critic, real.detach(), fake, generator)

    @abstractmethod
    def _term(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return the term for checked samples."""


P = TypeVar("P", bound=Penalty)


def configured_first(kind: type[P]) -> type[P]:
    """Make a penalty's constructor raise an error if it is given a network or a tensor."""
    configure = kind.__init__

    @functools.wraps(configure)
    def checked(self: P, *args: Any, **options: Any) -> None:
        if any(isinstance(value, nn.Module | Tensor) for value in (*args, *options.values())):
            needed = ", ".join(name for name, needed in _arguments(kind).items() if needed)
            raise TypeError(
                f"`{kind.__name__}` takes hyperparameters, got a network or a tensor. Configure it "
                f"first and call the result: `{kind.__name__}()({needed})`."
            )
        configure(self, *args, **options)

    setattr(kind, "__init__", checked)  # noqa: B010
    return kind


def _kinds(kind: type[Any]) -> Iterator[type[Any]]:
    for derived in kind.__subclasses__():
        yield derived
        yield from _kinds(derived)


def _arguments(kind: type[Any]) -> dict[str, bool]:
    """Return the arguments of a penalty class, and whether each is required."""
    if not any("__call__" in vars(base) for base in kind.__mro__):
        return {}
    _, *parameters = inspect.signature(kind.__call__).parameters.values()
    return {parameter.name: parameter.default is parameter.empty for parameter in parameters}


def sign_in_loss(player: Player) -> int:
    """Return the sign with which a term of ``player`` enters a zero-sum loss.

    The max player maximises the loss, so a term that it minimises is subtracted.
    ``optimizer.step(loss, max_penalty=term)`` needs no sign.
    """
    return 1 if player == "min" else -1
