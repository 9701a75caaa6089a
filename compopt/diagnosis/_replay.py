"""Evaluate a game repeatedly, at nearby parameters and in double precision."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from compopt._typing import PLAYERS, Player
from compopt.diagnosis._graph import nodes_of
from compopt.diagnosis._players import Players
from compopt.diagnosis._restore import restored
from compopt.diagnosis._terms import terms_of
from compopt.game import Game, Loss, Terms, as_game

_Result = TypeVar("_Result")

_WIDER_DTYPES = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
_WIDER_CASTS: dict[Any, Any] = dict.fromkeys(
    (Tensor.half, Tensor.bfloat16, Tensor.float), Tensor.double
)


_DETACHING = (Tensor.detach, torch.detach, Tensor.item, Tensor.__float__)


class UnrepeatableError(RuntimeError):
    """The loss changes between calls at the same parameters."""


class Widened(TorchFunctionMode):
    """Mode in which torch functions convert arguments of lower precision to float64.

    Each tensor is converted once and then replaced by the same twin, so that in-place writes and
    gradients refer to one tensor. Casts to lower precision become casts to float64.
    """

    def __init__(self, twins: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        super().__init__()
        # Keep the tensors alive beside their twins: Python reuses the ids of freed objects.
        self._twins = {id(tensor): (tensor, twin) for tensor, twin in twins}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or the cast that replaces it, with wider arguments."""
        wider = {name: self._wide(value) for name, value in (kwargs or {}).items()}
        return _WIDER_CASTS.get(func, func)(*map(self._wide, args), **wider)

    def _wide(self, value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return _WIDER_DTYPES.get(value, value)
        if isinstance(value, Tensor):
            return self._twin(value) if value.dtype in _WIDER_DTYPES else value
        if isinstance(value, dict):
            return {key: self._wide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self._wide(item) for item in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value

    def _twin(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._twins:
            twin = tensor.to(_WIDER_DTYPES[tensor.dtype])
            if tensor.is_leaf:
                twin = twin.detach().requires_grad_(tensor.requires_grad)
            self._twins[id(tensor)] = tensor, twin
        return self._twins[id(tensor)][1]


class HeldNumbers(TorchFunctionMode):
    """Mode in which numbers that leave the graph keep their values of the first run.

    Such a number is a coefficient that depends on the parameters but counts as a constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: list[Tensor | float] = []
        self._count = 0

    def __enter__(self) -> "HeldNumbers":
        self._count = 0
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``; if it detaches a number, return the number of the first run."""
        result = func(*args, **(kwargs or {}))
        if func not in _DETACHING or (isinstance(result, Tensor) and result.dim() > 0):
            return result
        if self._count == len(self._values):
            self._values.append(_copied(result))
        self._count += 1
        return _copied(self._values[self._count - 1])


def _copied(number: Any) -> Any:
    return number.clone() if isinstance(number, Tensor) else number


class Replay:
    """Evaluates a game at nearby parameters, from the same state each time.

    Args:
        players: the players whose parameters are moved.
        loss_fn: returns the loss in any form that a step takes.
        twins: pairs of a tensor and its replacement in computations; empty to compute with the
            tensors themselves.
    """

    def __init__(
        self,
        players: Players,
        loss_fn: Callable[[], Loss],
        twins: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> None:
        self.players = players
        self._loss_fn = loss_fn
        self._twins = list(twins)
        by_id = {id(tensor): twin for tensor, twin in twins}
        self.params: dict[Player, list[Tensor]] = {
            player: [by_id.get(id(param), param) for param in players.params[player]]
            for player in PLAYERS
        }
        self._home = {
            player: [param.detach().clone() for param in self.params[player]] for player in PLAYERS
        }
        self._base = self._home
        self._numbers = HeldNumbers()
        self._steady: list[tuple[nn.Module, list[tuple[Tensor, Tensor]]]] = []

    def evaluate(
        self,
        work: Callable[[Game], _Result],
        player: Player = "min",
        direction: Sequence[Tensor] = (),
        width: float = 0.0,
    ) -> _Result:
        """Return ``work(game)`` with ``player`` moved by ``width`` times ``direction``.

        Args:
            work: reads the game; runs at the moved parameters, with gradients enabled.
            player: the player that moves.
            direction: one tensor for each of its parameters; empty to not move.
            width: multiple of ``direction``.
        """
        with self.state():
            try:
                for param, step in zip(self.params[player], direction, strict=bool(direction)):
                    # Write through `data` to not increment version counters, which the caller's
                    # graphs check.
                    param.data.add_(step, alpha=width)
                return work(self.game())
            finally:
                self._rest(player)

    def start_from(self, steps: Mapping[Player, Sequence[Tensor]] | None = None) -> None:
        """Set the base point of evaluations to the initial parameters plus ``steps``.

        Args:
            steps: for each player, one tensor for each parameter; None for no steps.
        """
        self._base = self._home
        if steps is not None:
            self._base = {
                player: [home + step for home, step in zip(homes, steps[player], strict=True)]
                for player, homes in self._home.items()
            }
        for player in PLAYERS:
            self._rest(player)

    def _rest(self, player: Player) -> None:
        for param, base in zip(self.params[player], self._base[player], strict=True):
            param.data.copy_(base)

    def game(self) -> Game:
        """Evaluate the game at the current parameters."""
        with self._numbers:
            loss = self._loss_fn()
        device = self.players.device
        return as_game(loss, Terms(), device, allows_pair=True, allows_curvature=True)

    @contextmanager
    def state(self) -> Iterator[None]:
        """Run the context from the common initial state of evaluations, and restore the state."""
        mode = Widened(self._twins) if self._twins else nullcontext()
        with restored(self.players.modules, self.players.device), torch.enable_grad():
            for module, buffers in self._steady:
                module.training = False
                for buffer, value in buffers:
                    buffer.data.copy_(value)
            with mode:
                yield

    def hold_iterations(self) -> None:
        """Evaluate once, then keep the singular vectors of torch's spectral normalizations.

        Their gradient treats the singular vectors as constants, but moved parameters change them.
        """
        iterating = list(_iterating(self.players.modules))
        if not iterating:
            return

        def buffers(game: Game) -> list[tuple[nn.Module, list[tuple[Tensor, Tensor]]]]:
            return [
                (module, [(b, b.detach().clone()) for b in module.buffers(recurse=False)])
                for module in iterating
            ]

        self._steady = self.evaluate(buffers)

    def check_twins_only(self, game: Game) -> None:
        """Raise if the graph of ``game`` contains a parameter instead of its twin."""
        originals = {id(tensor) for tensor, _ in self._twins}
        for node in nodes_of(terms_of(game).values()):
            if id(getattr(node, "variable", None)) in originals:
                raise RuntimeError(
                    "a custom function takes a parameter that belongs to none of the given modules"
                )


def _iterating(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if isinstance(module, parametrize.ParametrizationList):
            yield from module.children()
        names = [name for name, _ in module.named_buffers(recurse=False)]
        # `torch.nn.utils.spectral_norm` keeps `weight_u` and `weight_v` beside `weight_orig`.
        if any(name.endswith("_u") and hasattr(module, f"{name[:-2]}_orig") for name in names):
            yield module


@contextmanager
def replaying(players: Players, loss_fn: Callable[[], Loss], *, widen: bool) -> Iterator[Replay]:
    """Yield a :class:`Replay` of a game, and restore parameters and buffers on exit.

    Args:
        players: the two players.
        loss_fn: returns the loss.
        widen: whether to compute in float64. Inside the context the modules then hold float64 twins
            of their parameters and buffers; the tensors themselves do not change.
    """
    if not widen:
        replay = Replay(players, loss_fn)
        try:
            yield replay
        finally:
            replay.start_from()
        return
    held = [
        (module, name, tensor)
        for module in players.modules
        for named in (module.named_parameters, module.named_buffers)
        for name, tensor in named(recurse=False, remove_duplicate=False)
        if tensor.dtype in _WIDER_DTYPES
    ]
    tensors = {id(tensor): tensor for _, _, tensor in held}
    tensors |= {id(param): param for player in PLAYERS for param in players.params[player]}
    twins = {key: _twin(tensor) for key, tensor in tensors.items()}
    try:
        for module, name, tensor in held:
            setattr(module, name, twins[id(tensor)])
        yield Replay(players, loss_fn, [(tensors[key], twins[key]) for key in tensors])
    finally:
        for module, name, tensor in held:
            setattr(module, name, tensor)


def _twin(tensor: Tensor) -> Tensor:
    twin = tensor.detach().to(_WIDER_DTYPES.get(tensor.dtype, tensor.dtype), copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, requires_grad=tensor.requires_grad)
    return twin.requires_grad_(tensor.requires_grad)
