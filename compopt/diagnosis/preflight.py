"""A rehearsal of the derivatives before training."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from compopt._checks import check_hooks
from compopt._remedies import COMPILED, DISTRIBUTED, SYNCHRONIZED
from compopt._typing import PLAYERS
from compopt.diagnosis._findings import PreflightError, PreflightReport
from compopt.diagnosis._players import PlayerLike, Players, players_of
from compopt.diagnosis._rehearsal import Rehearsal
from compopt.diagnosis._restore import restored
from compopt.diagnosis._verdict import accuracy
from compopt.game import Loss


def preflight(
    loss_fn: Callable[[], Loss],
    min_player: PlayerLike,
    max_player: PlayerLike,
    *,
    modules: Iterable[nn.Module] = (),
    measure: bool = True,
) -> PreflightReport:
    """Take the derivatives of a step, name what fails, and compare them with differences.

    Run it once before training, with the function that computes the training loss. Parameters,
    ``.grad``, buffers (running statistics, power iterations), modes and torch's default random
    states are afterwards as before, also after an error. Only modules that are given can be named
    and their buffers restored, so pass modules rather than parameters where there is a choice.

    First the errors of autograd are explained, and the silent failures of custom
    functions whose backward is not differentiable. Then the derivatives are measured along random
    directions: gradients against differences of the loss, mixed products against differences of
    the gradient, and the two orders of differentiation against each other. So a derivative that is
    merely wrong is found as well. The loss is evaluated in float64 for that, whatever the dtype of
    the parameters, with the same random numbers and buffers each time. A disagreement counts if
    differences at two widths agree with each other, along two directions: neither a kink (ReLU) nor
    rounding is taken for an error. If float64 does not work, the parameters' own dtype is used
    and products are compared in their two orders alone.

    Some gradients are other than the loss's by intention: straight-through estimators, terms of
    ``loss`` that one player does not see through ``detach()``, power iterations that are written by
    hand and have not converged. They are found as wrong; ``measure=False`` lets them pass. Held
    still are numbers that leave the graph by ``detach()`` or ``item()``, such as coefficients that
    adapt, and torch's spectral normalizations.

    Args:
        loss_fn: returns the loss, a pair (min, max) of losses, a :class:`~compopt.Game` or
            :class:`~compopt.MicroBatches`. Called repeatedly, so let it use the same batch; if its
            value changes, nothing is measured.
        min_player: the module, the modules, or the parameters (with names or without) that
            minimise the loss. Parameters that do not require grad are left out.
        max_player: those that maximise it.
        modules: further modules that the loss uses.
        measure: whether to compare with differences; otherwise ``loss_fn`` is called once.

    Returns:
        The findings; ``print`` shows a summary.

    Raises:
        PreflightError: if a derivative is missing, fails, is not finite or is wrong, or if a loss
            of a pair does not depend on the other player. The text names the module at fault, by
            its place in the argument and its class, and the remedy.
        TypeError, ValueError: if an argument is of another kind, the loss is not a scalar, or a
            parameter has a hook.
        Exception: of ``loss_fn`` when it is first called, as it is.

    Cost: one forward pass, one backward pass with its graph, two mixed products; a copy of the
        buffers. Measuring takes, in float64, 10 forward passes, 5 backward passes, of which one
        with its graph, and 3 mixed products; in a pair of losses twice as many backward passes and
        products; up to four times all that where directions disagree. It takes memory for about ten
        float64 copies of the parameters. Synchronises with the device.

    Example:
        >>> generator, critic = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        >>> real, z = torch.randn(8, 2), torch.randn(8, 2)
        >>> report = preflight(
        ...     lambda: critic(real).mean() - critic(generator(z)).mean(), generator, critic
        ... )
        >>> report.interacts, report.without_mixed
        (True, ('max_player.bias',))
        >>> max(report.errors.values()) < 1e-4
        True
    """
    if not callable(loss_fn) or isinstance(loss_fn, Tensor):
        raise TypeError(
            "`loss_fn` must be a function without arguments that returns the loss, got a "
            f"{type(loss_fn).__name__}. Write `lambda:` before the computation."
        )
    players = players_of({"min_player": min_player, "max_player": max_player}, modules)
    return rehearse(loss_fn, players, measure=measure)


def rehearse(
    loss_fn: Callable[[], Loss], players: Players, *, measure: bool = True
) -> PreflightReport:
    """Take and measure the derivatives of two players; see :func:`preflight`."""
    _refuse_wrappers(players)
    check_hooks([param for player in PLAYERS for param in players.params[player]])
    with restored(players.modules, players.device), torch.enable_grad():
        rehearsal = Rehearsal(players, loss_fn)
        report, dtype = rehearsal.report(), rehearsal.dtype
        # The graph is not needed any more, and the next ones are twice as large.
        del rehearsal
    if not measure:
        return report
    found = accuracy(players, loss_fn, dtype)
    return replace(report, errors=found.errors, unmeasured=found.unmeasured)


def _refuse_wrappers(players: Players) -> None:
    """Raise if a module is wrapped in one that cannot be differentiated twice."""
    for module in players.modules:
        # The first is set by `torch.compile(module)`, the second by `module.compile()`. Running
        # such a module would compile it first, hooks included, and then fail.
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise PreflightError(f"{players.label(module)} cannot be used. {COMPILED}")
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise PreflightError(f"{players.label(module)} cannot be used. {DISTRIBUTED}")
        if isinstance(module, nn.SyncBatchNorm):
            raise PreflightError(f"{players.label(module)} cannot be used. {SYNCHRONIZED}")
