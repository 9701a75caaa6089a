"""Checks that a step can be one program; each error names an alternative."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compopt._typing import Player
from compopt.compiled.trees import HERE
from compopt.distributed import Placement
from compopt.optim.settings import Settings
from compopt.optim.two_player import TwoPlayerCompetitive

EAGER = 'compile with `mode="eager"`, which takes the plain step'


def check_arguments(optimizer: object, loss_fn: object, networks: Sequence[object]) -> None:
    """Raise unless the arguments of :func:`compopt.compile` are of the right kinds."""
    if not isinstance(optimizer, TwoPlayerCompetitive):
        raise TypeError(
            f"`optimizer` must be a CGD or an ACGD, got {type(optimizer).__name__}. Others are "
            "stepped by their own `step`."
        )
    if not callable(loss_fn) or isinstance(loss_fn, Tensor):
        raise TypeError(
            f"`loss_fn` must be a function of the networks and the inputs, got "
            f"{type(loss_fn).__name__}. Write `def loss_fn(G, D, real, noise): return ...`."
        )
    strangers = [type(net).__name__ for net in networks if not isinstance(net, nn.Module)]
    if strangers or not networks:
        raise TypeError(
            f"`networks` must be the modules that `loss_fn` takes, got {strangers or 'none'}. Put "
            "tensors of your own into an `nn.ParameterList`."
        )


def check_program(optimizer: TwoPlayerCompetitive) -> None:
    """Raise unless a step of ``optimizer`` can be traced into a program on the CPU."""
    check_fixed(optimizer)
    device = _device(optimizer)
    if device.type != "cpu":
        raise ValueError(
            f'`mode="program"` is for parameters on the CPU, got {device}. Use `mode="graph"` on a '
            f"CUDA device; elsewhere {EAGER}."
        )
    if any(group["mirror"] == "positive-definite" for group in optimizer.param_groups):
        raise ValueError(
            'A program cannot read values, as `mirror="positive-definite"` does. Use another '
            f"mirror, or {EAGER}."
        )


def check_graph(optimizer: TwoPlayerCompetitive) -> None:
    """Raise unless steps can be captured, with learning rates that schedulers can change."""
    check_fixed(optimizer)
    device = _device(optimizer)
    check_graph_device(device)
    if not optimizer.capturable:
        raise ValueError(
            f"A device graph needs `capturable=True`: {type(optimizer).__name__}(..., "
            "capturable=True)."
        )
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise ValueError(
            "A device graph would run the hooks of `optimizer.step` once, in its capture. Remove "
            f"them and do their work after each `step(...)`, or {EAGER}."
        )
    for group in optimizer.param_groups:
        lr = group["lr"]
        if not isinstance(lr, Tensor) or lr.device != device:
            raise ValueError(
                f"A device graph would keep the present value of `lr`, {float(lr)}, whatever a "
                f"scheduler sets. Use `lr=torch.tensor({float(lr)}, device={str(device)!r})`."
            )


def check_graph_device(device: torch.device) -> None:
    """Raise unless ``device`` is a CUDA device."""
    if device.type != "cuda":
        raise ValueError(
            f'`mode="graph"` needs parameters on a CUDA device, got {device}. Use `mode="auto"`, '
            "which compiles the step on the CPU."
        )


def _device(optimizer: TwoPlayerCompetitive) -> torch.device:
    device: torch.device = optimizer.param_groups[0]["params"][0].device
    return device


def check_fixed(optimizer: TwoPlayerCompetitive) -> None:
    """Raise unless the solver has a fixed iteration count and no processes share the step."""
    optimizer._check_groups()
    if type(optimizer.process_group) is not Placement:
        raise ValueError(
            f"A step across processes cannot be compiled. Leave out `process_group`, or {EAGER}."
        )
    solver = optimizer.solver
    if Settings.of(optimizer.param_groups).interacts and not getattr(
        solver, "has_fixed_count", False
    ):
        raise ValueError(
            f"A program needs a solver with a fixed iteration count, got {solver!r}. Use "
            f"`ConjugateGradient(rtol=0.0, max_iter=1)`, or {EAGER}."
        )


def check_inputs(leaves: Iterable[object]) -> None:
    """Raise unless all inputs other than tensors are numbers, strings or None."""
    for leaf in leaves:
        if not (leaf is None or leaf is HERE or isinstance(leaf, bool | int | float | str)):
            raise TypeError(
                "Inputs of a compiled step must be tensors, numbers, strings, and tuples, lists "
                f"and dictionaries of them, got {type(leaf).__name__}. Convert arrays by "
                "`torch.as_tensor`, and let `loss_fn` hold what is constant."
            )


def check_owned(names: Mapping[Tensor, str], params: Mapping[Player, Sequence[Tensor]]) -> None:
    """Raise unless all parameters of the players belong to the networks.

    Args:
        names: the names of the networks' parameters.
        params: the players' parameters.
    """
    for player, tensors in params.items():
        for index, param in enumerate(tensors):
            if param not in names:
                raise ValueError(
                    f"Parameter {index} of the {player} player, of shape {tuple(param.shape)}, is "
                    "in none of the networks. Pass every network that the optimizer trains, "
                    "`compopt.compile(optimizer, loss_fn, G, D)`, and tensors of your own in an "
                    "`nn.ParameterList`."
                )
