"""A rehearsal of the derivatives before training."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from compopt._remedies import COMPILED, DISTRIBUTED, SYNCHRONIZED
from compopt.diagnosis._findings import PreflightError, PreflightReport
from compopt.diagnosis._players import PlayerLike, Players, players_of
from compopt.diagnosis._rehearsal import Rehearsal
from compopt.diagnosis._restore import restored
from compopt.game import Game


def preflight(
    loss_fn: Callable[[], Tensor | Game],
    min_player: PlayerLike,
    max_player: PlayerLike,
    *,
    modules: Iterable[nn.Module] = (),
) -> PreflightReport:
    """Run the loss, its gradients and a mixed product in each direction; name what fails.

    Run it once before training, with the function that computes the training loss. Parameters,
    ``.grad``, buffers (running statistics, power iterations) and torch's default random states are
    afterwards as before, also after an error. Only modules that are given can be named and their
    buffers restored, so pass modules rather than parameters where there is a choice.

    Errors of autograd are explained, and besides them the silent failures of custom functions whose
    backward is not differentiable. A derivative that is merely wrong is not seen;
    :func:`~compopt.check_operator` sees some of those.

    Args:
        loss_fn: returns the zero-sum loss or a :class:`~compopt.Game`. Called once.
        min_player: the module, the modules, or the parameters (with names or without) that
            minimise the loss. Parameters that do not require grad are left out.
        max_player: those that maximise it.
        modules: further modules that the loss uses.

    Returns:
        The findings; ``print`` shows a summary.

    Raises:
        PreflightError: if a derivative is missing, fails, or is not finite. The text names the
            module at fault, by its place in the argument and its class, and the remedy.
        TypeError, ValueError: if an argument is of another kind, or the loss is not a scalar.
        Exception: of ``loss_fn``, as it is.

    Cost: one forward pass, one backward pass with its graph, two mixed products; a copy of the
        buffers. Synchronises with the device.

    Example:
        >>> generator, critic = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        >>> real, z = torch.randn(8, 2), torch.randn(8, 2)
        >>> report = preflight(
        ...     lambda: critic(real).mean() - critic(generator(z)).mean(), generator, critic
        ... )
        >>> report.interacts, report.without_mixed
        (True, ('max_player.bias',))
    """
    players = players_of({"min_player": min_player, "max_player": max_player}, modules)
    _refuse_wrappers(players)
    with restored(players.modules, players.device), torch.enable_grad():
        return Rehearsal(players, loss_fn).report()


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
