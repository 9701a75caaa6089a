"""Check the derivatives of any number of players before training."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from compopt._checks import check_iterable, reached
from compopt.diagnosis._findings import PreflightError, PreflightReport
from compopt.diagnosis._players import PlayerLike, Players, players_of
from compopt.diagnosis._restore import restored
from compopt.diagnosis.preflight import rehearse


def preflight_players(
    loss_fn: Callable[[], Sequence[Tensor]],
    players: Sequence[PlayerLike],
    *,
    modules: Iterable[nn.Module] = (),
    measure: bool = True,
) -> dict[tuple[int, int], PreflightReport]:
    """Check the losses of any number of players, for :class:`~compopt.optim.PolymatrixCGD`.

    Each player's loss is checked with every other player on which it depends, as
    :func:`preflight` checks the loss of two players.

    Args:
        loss_fn: returns a loss for each player. It is called repeatedly and must use the same
            batch.
        players: for each player, its module, modules, or parameters, as in :func:`preflight`.
        modules: further modules that the losses use.
        measure: whether to compare with differences.

    Returns:
        Findings by players (i, j): those on the loss of i by the parameters of both. Pairs where
        the loss of i does not depend on j are omitted.

    Raises:
        PreflightError: if a derivative is missing, fails, is not finite or is wrong, if a loss does
            not depend on its own player, or if no loss depends on another player.

    Cost: that of :func:`preflight` for each pair in the result.

    Example:
        >>> x, y, z = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
        >>> reports = preflight_players(
        ...     lambda: [x @ y, y @ y - y @ z, (z - x) @ z], [[x], [y], [z]]
        ... )
        >>> sorted(reports)
        [(0, 1), (1, 2), (2, 0)]
    """
    given = list(check_iterable("players", players))
    # Lists, because iterators would be consumed more than once.
    given = [one if isinstance(one, nn.Module) else list(one) for one in given]
    if len(given) < 2:
        raise ValueError(f"`players` must hold at least two players, got {len(given)}.")
    further = [*modules, *(m for one in given for m in _modules_of(one))]
    pairs = {
        (i, j): players_of({f"players[{i}]": given[i], f"players[{j}]": given[j]}, further)
        for i in range(len(given))
        for j in range(len(given))
        if i != j
    }
    dependences = _dependences(loss_fn, pairs, len(given))
    for i, found in enumerate(dependences):
        if i not in found:
            raise PreflightError(
                f"The loss of player {i} does not depend on its own parameters. Leave out "
                "`detach()` and `no_grad()`."
            )
    reports: dict[tuple[int, int], PreflightReport] = {}
    for (i, j), both in pairs.items():
        if j not in dependences[i]:
            continue
        try:
            reports[i, j] = rehearse(lambda i=i: loss_fn()[i], both, measure=measure)  # type: ignore[misc]
        except PreflightError as error:
            raise PreflightError(f"In the loss of player {i}: {error}") from error
    if not reports:
        raise PreflightError(
            "The players do not interact: no loss depends on another player. Leave out `detach()` "
            "and `no_grad()`; if that is intended, each player's own optimizer takes the same step."
        )
    return reports


def _modules_of(player: object) -> list[nn.Module]:
    entries = player if isinstance(player, list) else [player]
    return [entry for entry in entries if isinstance(entry, nn.Module)]


def _dependences(
    loss_fn: Callable[[], Sequence[Tensor]], pairs: dict[tuple[int, int], Players], count: int
) -> list[list[int]]:
    """Return, for each player, the players on which its loss depends."""
    owners = {
        id(param): player
        for pair, players in pairs.items()
        for player, params in zip(pair, players.params.values(), strict=True)
        for param in params
    }
    players = next(iter(pairs.values()))
    with restored(players.modules, players.device), torch.enable_grad():
        losses = loss_fn()
        if isinstance(losses, Tensor) or not isinstance(losses, list | tuple):
            raise TypeError(
                "`loss_fn` must return a list of one loss for each player, got "
                f"{type(losses).__name__}."
            )
        if len(losses) != count:
            raise ValueError(
                f"`loss_fn` must return one loss for each of the {count} players, got "
                f"{len(losses)}."
            )
        for index, loss in enumerate(losses):
            if not (isinstance(loss, Tensor) and loss.requires_grad):
                raise PreflightError(
                    f"`loss_fn` returned losses[{index}] without a graph. Compute it with "
                    "gradients enabled, without `backward()`, `detach()` or `item()`."
                )
        return [reached(loss, owners) for loss in losses]
