"""Lookahead for games: slow weights of both players."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from compopt._checks import check_count, check_non_negative
from compopt.kernels.lists.tables import Place
from compopt.optim.commit import Commit
from compopt.optim.players import TwoPlayerOptimizer


class LookaheadMinmax:
    r"""Lookahead-minmax around any optimizer: every few steps both players go back part of the way.

    Every ``interval`` steps of the optimizer, for the parameters of both players at once,

    .. math:: s \leftarrow s + \alpha (w - s), \qquad w \leftarrow s

    with the slow weights s, which start at the parameters before the first step. They are stored in
    the optimizer's state as ``slow``, and the count in its groups as ``lookahead_step``, so
    checkpoints of the optimizer contain both; a copy of the optimizer needs a new LookaheadMinmax.
    Create it before a state dict is loaded. A step that an optimizer of this package does not take,
    as after a loss that is not finite, does not count; nor does one that a ``GradScaler`` skips. An
    interrupt between a step and its average leaves the step taken and not averaged.

    Args:
        optimizer: an optimizer of this package or of torch. Call its ``step`` as usual; hooks do
            the rest.
        interval: steps between two averages.
        alpha: fraction of the way that is kept, in [0, 1].

    Cost: a copy of the parameters is kept. With ``capturable``, each step waits for the device, to
    read whether it was taken, and cannot be captured.

    Example:
        >>> from compopt import CGD
        >>> x, y = (torch.tensor([0.5], requires_grad=True) for _ in range(2))
        >>> optimizer = CGD([x], [y], lr=0.1)
        >>> lookahead = LookaheadMinmax(optimizer, interval=2)
        >>> for _ in range(2):
        ...     loss = optimizer.step((x * y).sum())

    References:
        Chavdarova et al. (2021), Taming GANs with lookahead-minmax.
        https://arxiv.org/abs/2006.14567
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, interval: int = 5, alpha: float = 0.5
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"`optimizer` must be a torch optimizer, got {type(optimizer).__name__}."
            )
        check_count("interval", interval, minimum=1)
        check_non_negative("alpha", alpha)
        if alpha > 1:
            raise ValueError(f"`alpha` must be in [0, 1], got {alpha!r}.")
        if isinstance(optimizer, TwoPlayerOptimizer):
            optimizer.state_keys_of_hooks.add("slow")
        self.interval = interval
        self.alpha = alpha
        self._starts: dict[Tensor, Tensor] = {}
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Remove the hooks from the optimizer."""
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if Place.of(optimizer.param_groups[0]["params"][0]).capturing:
            raise RuntimeError(
                "LookaheadMinmax counts steps on the host, which a device graph does not do when "
                "it is replayed. Capture an optimizer without it."
            )
        if isinstance(optimizer, TwoPlayerOptimizer):
            optimizer._is_taken = False
        # Stored in the state after the step: optimizers initialize state only if it is empty.
        self._starts = {
            param: param.detach().clone()
            for group in optimizer.param_groups
            for param in group["params"]
            if param.requires_grad and "slow" not in optimizer.state.get(param, {})
        }

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        starts, self._starts = self._starts, {}
        is_taken = not isinstance(optimizer, TwoPlayerOptimizer) or bool(optimizer._is_taken)
        commit = Commit()
        for param, start in starts.items():
            if optimizer.state.get(param) or (is_taken and _keeps_nothing(optimizer, param)):
                commit.add(partial(optimizer.state[param].__setitem__, "slow", start))
        for group in optimizer.param_groups if is_taken else ():
            count = group.get("lookahead_step", 0) + 1
            commit.add(partial(group.__setitem__, "lookahead_step", count))
            if count % self.interval:
                continue
            for param in group["params"]:
                if param.requires_grad:
                    slow = starts[param] if param in starts else optimizer.state[param]["slow"]
                    commit.add(partial(slow.lerp_, param.to(slow.dtype), self.alpha), slow)
                    commit.copy(param, slow)
        commit.run()


def _keeps_nothing(optimizer: torch.optim.Optimizer, param: Tensor) -> bool:
    """Return True if a step that was taken moves ``param`` without creating state for it.

    Other parameters without state have not moved: their first step must find the state empty.
    """
    if isinstance(optimizer, TwoPlayerOptimizer):
        return not optimizer._knows_its_state
    return param.grad is not None
