"""Adam's relatives for games: with extrapolation, and optimistic."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class _AdamMoves(torch.optim.Optimizer):
    """What both share: Adam's moments, and the move that they give.

    Args:
        params: of one player.
        lr: learning rate.
        betas: decay rates of the averages of gradient and squared gradient.
        eps: added to the root, after the correction of bias.
        maximize: whether the player raises the objective whose gradient it is given.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    @torch.no_grad()
    def _each_move(self, apply: Callable[[Tensor, Tensor, dict[str, Any]], None]) -> None:
        """Advance the moments and call ``apply(param, move, state)``: Adam's step subtracts it."""
        for group in self.param_groups:
            first, second = group["betas"]
            for param in group["params"]:
                if param.grad is None:
                    continue
                grad = -param.grad if group["maximize"] else param.grad
                state = self.state[param]
                if "step" not in state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(param)
                    state["exp_avg_sq"] = torch.zeros_like(param)
                state["step"] += 1
                count = state["step"].item()
                state["exp_avg"].lerp_(grad, 1 - first)
                state["exp_avg_sq"].mul_(second).addcmul_(grad, grad, value=1 - second)
                root = (state["exp_avg_sq"] / (1 - second**count)).sqrt_().add_(group["eps"])
                apply(param, state["exp_avg"] / root * (group["lr"] / (1 - first**count)), state)


class ExtraAdam(_AdamMoves):
    """Extragradient with Adam's directions: look ahead, then move from where one stood.

    ``w' = w - u(w)`` by :meth:`extrapolate`, then ``w+ = w - u(w')`` by :meth:`step`, each with the
    gradient of its own point in ``.grad``. The moments advance at both.

    References:
        Gidel et al. (2019), algorithm 4. https://arxiv.org/abs/1802.10551
    """

    def extrapolate(self) -> None:
        """Go to the point that is looked ahead from, remembering where one stood."""

        def apply(param: Tensor, move: Tensor, state: dict[str, Any]) -> None:
            state["origin"] = param.clone()
            param.sub_(move)

        self._each_move(apply)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Go back and take the step with the gradient found ahead."""

        def apply(param: Tensor, move: Tensor, state: dict[str, Any]) -> None:
            if "origin" not in state:
                raise RuntimeError("`step` must follow `extrapolate`; there is no point to go to.")
            param.copy_(state.pop("origin")).sub_(move)

        self._each_move(apply)


class OptimisticAdam(_AdamMoves):
    """Adam that expects its last move again: ``w+ = w - 2 u_t + u_{t-1}``, ``u_0 = 0``.

    References:
        Daskalakis et al. (2018), algorithm 1. https://arxiv.org/abs/1711.00141
    """

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with the gradient in ``.grad``."""

        def apply(param: Tensor, move: Tensor, state: dict[str, Any]) -> None:
            param.sub_(move, alpha=2)
            if "move" in state:
                param.add_(state["move"])
            state["move"] = move

        self._each_move(apply)
