"""Check the derivatives of a step before training."""

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
    """Compute the derivatives of a step, locate failures, and compare with finite differences.

    Run it once before training, with the function that computes the training loss. Parameters,
    ``.grad``, buffers (running statistics, power iterations), modes and torch's default random
    states are restored, also after an error. Only given modules can be named in errors and have
    their buffers restored, so pass modules rather than parameters if possible.

    First, autograd errors are explained, as are silent failures of custom functions with a
    non-differentiable backward pass. Then the derivatives are measured along random directions,
    which also detects wrong values: gradients against differences of the loss, mixed products
    against differences of the gradient, and the two orders of differentiation against each other.
    For this the loss is evaluated in float64, also for parameters of another dtype, with the same
    random numbers and buffers each time. A derivative is wrong only if, along two directions,
    differences at two widths agree with each other but not with it, so neither a kink (ReLU) nor
    rounding counts as an error. If float64 does not work, the parameters' own dtype is used and
    for mixed products only the two orders are compared.

    Some gradients intentionally differ from the loss's: straight-through estimators, terms of
    ``loss`` that ``detach()`` hides from one player, hand-written power iterations that have not
    converged. They are reported as wrong; pass ``measure=False`` to skip the comparison. Numbers
    that leave the graph by ``detach()`` or ``item()``, such as adaptive coefficients, and torch's
    spectral normalizations are held constant.

    Args:
        loss_fn: returns the loss, a pair (min, max) of losses, a :class:`~compopt.Game` or
            :class:`~compopt.MicroBatches`. It is called repeatedly and must use the same batch; if
            its value changes, nothing is measured.
        min_player: the module, modules, or parameters (with or without names) that minimise the
            loss. Parameters that do not require grad are ignored.
        max_player: those that maximise it.
        modules: further modules that the loss uses.
        measure: whether to compare with differences; otherwise ``loss_fn`` is called once.

    Returns:
        The findings; ``print`` shows a summary.

    Raises:
        PreflightError: if a derivative is missing, fails, is not finite or is wrong, or if a loss
            of a pair does not depend on the other player. The message names the module, by its
            place in the argument and its class, and the remedy.
        TypeError, ValueError: if an argument is invalid, the loss is not a scalar, or a parameter
            has a hook.
        Exception: any exception of the first call of ``loss_fn``, unchanged.

    Cost: one forward pass, one backward pass with its graph, two mixed products; a copy of the
        buffers. Measuring takes, in float64, 10 forward passes, 5 backward passes, of which one
        with its graph, and 3 mixed products; for a pair of losses twice as many backward passes and
        products; up to four times all that if directions disagree. It needs memory for about ten
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
    """Compute and measure the derivatives of two players; see :func:`preflight`."""
    _refuse_wrappers(players)
    check_hooks([param for player in PLAYERS for param in players.params[player]])
    with restored(players.modules, players.device), torch.enable_grad():
        rehearsal = Rehearsal(players, loss_fn)
        report, dtype = rehearsal.report(), rehearsal.dtype
        # Free the graph: the float64 graphs that follow are twice as large.
        del rehearsal
    if not measure:
        return report
    found = accuracy(players, loss_fn, dtype)
    return replace(report, errors=found.errors, unmeasured=found.unmeasured)


def _refuse_wrappers(players: Players) -> None:
    """Raise if a module is a wrapper or a class that cannot be differentiated twice."""
    for module in players.modules:
        # `torch.compile(module)` sets the first attribute, `module.compile()` the second. Checked
        # before the first call, which would compile the module, including its hooks, and then fail.
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise PreflightError(f"{players.label(module)} cannot be used. {COMPILED}")
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise PreflightError(f"{players.label(module)} cannot be used. {DISTRIBUTED}")
        if isinstance(module, nn.SyncBatchNorm):
            raise PreflightError(f"{players.label(module)} cannot be used. {SYNCHRONIZED}")
