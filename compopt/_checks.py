"""Argument checks. Each message gives the argument, its value, the rule and the remedy."""

import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from compopt._graph import walk
from compopt._remedies import TAKES_PART, called, how_to_move_alone
from compopt._typing import K


def check_non_negative(
    name: str, value: object, *, allow_tensor: bool = False, remedy: str = ""
) -> None:
    """Raise unless ``value`` is a finite number >= 0 (or, where allowed, a 0-dim tensor).

    Args:
        name: name of the argument.
        value: value to check.
        allow_tensor: whether ``value`` may be a tensor.
        remedy: what to do about a negative value.
    """
    if isinstance(value, Tensor):
        if not allow_tensor:
            raise TypeError(f"`{name}` must be a number, got a tensor. Use `float(value)`.")
        if value.dim() != 0 or not value.is_floating_point():
            raise ValueError(
                f"`{name}` must be a number or a 0-dim floating-point tensor, "
                f"got shape {tuple(value.shape)} and dtype {value.dtype}."
            )
        # Do not read a tensor on a device: that would synchronise with the device.
        if value.device.type != "cpu":
            return
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        is_other_number = isinstance(value, Real) and not isinstance(value, bool)
        hint = f" Use `float({name})`." if is_other_number else ""
        raise TypeError(f"`{name}` must be a number, got {value!r}.{hint}")
    if not (math.isfinite(value) and value >= 0):
        rule = f"`{name}` must be finite and not negative, got {value!r}."
        raise ValueError(f"{rule} {remedy}" if remedy and value < 0 else rule)


def check_positive(name: str, value: object) -> None:
    """Raise unless ``value`` is a finite number > 0."""
    check_non_negative(name, value)
    if value == 0:
        raise ValueError(f"`{name}` must be positive, got {value!r}.")


def check_decay_rate(name: str, value: object) -> None:
    """Raise unless ``value`` is a number in [0, 1)."""
    check_non_negative(name, value)
    if not value < 1:  # type: ignore[operator]
        raise ValueError(f"`{name}` must be in [0, 1), got {value!r}.")


def check_share(name: str, value: object) -> None:
    """Raise unless ``value`` is a number in (0, 1]."""
    check_positive(name, value)
    if value > 1:  # type: ignore[operator]
        raise ValueError(f"`{name}` must be in (0, 1], got {value!r}.")


def check_count(name: str, value: object, *, minimum: int) -> None:
    """Raise unless ``value`` is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        is_other_number = isinstance(value, Integral) and not isinstance(value, bool)
        hint = f" Use `int({name})`." if is_other_number else ""
        raise TypeError(f"`{name}` must be an integer, got {value!r}.{hint}")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value!r}.")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}.")


def check_vector(name: str, vector: Tensor, size: int) -> None:
    """Raise unless ``vector`` has shape [size]."""
    if vector.shape != (size,):
        raise ValueError(f"`{name}` must have shape ({size},), got {tuple(vector.shape)}.")


def check_iterable(name: str, params: object) -> Iterable[Any]:
    """Return ``params`` if it is an ordered iterable other than a tensor."""
    if isinstance(params, Tensor):
        raise TypeError(
            f"`{name}` must be an iterable of tensors or group dictionaries, got a tensor. "
            f"Wrap it in a list: `[{name}]`."
        )
    if isinstance(params, torch.nn.Module):
        raise TypeError(
            f"`{name}` must be an iterable of tensors or group dictionaries, got the module "
            f"{type(params).__name__}. Pass `module.parameters()`."
        )
    if isinstance(params, set | frozenset):
        raise TypeError(
            f"`{name}` must be ordered, got a {type(params).__name__}, whose order changes between "
            "runs. Pass a list."
        )
    if not isinstance(params, Iterable):
        raise TypeError(
            f"`{name}` must be an iterable of tensors or group dictionaries, "
            f"got {type(params).__name__}.{_call_it(params)}"
        )
    return params


def _call_it(value: object) -> str:
    if not callable(value):
        return ""
    return f" Call it: `{getattr(value, '__name__', 'it')}()`."


def check_params(name: str, params: Sequence[Tensor]) -> None:
    """Raise unless ``params`` are real, dense tensors of one device, each given once."""
    if not params:
        raise ValueError(f"`{name}` is empty. Each player needs at least one parameter.")
    for param in params:
        if not isinstance(param, Tensor):
            raise TypeError(f"`{name}` must hold tensors, got {type(param).__name__}.")
        if param.is_inference():
            raise ValueError(
                f"`{name}` must hold tensors made outside `torch.inference_mode()`, got one of "
                f"shape {tuple(param.shape)} made in it, which can never be differentiated. Build "
                "the networks outside."
            )
        if not param.is_floating_point():
            raise ValueError(
                f"`{name}` must hold real floating-point tensors, got {param.dtype}. "
                "Keep a complex parameter as two real ones (`torch.view_as_real`)."
            )
        if param.layout != torch.strided:
            raise ValueError(f"`{name}` must hold dense tensors, got layout {param.layout}.")
        if is_sharded(param):
            raise TypeError(
                f"`{name}` must hold ordinary tensors, got a DTensor, as `fully_shard` makes: its "
                "module gathers and frees parameters around a single backward pass, and autograd "
                "then treats mixed second derivatives as zero. Leave the parameters whole and "
                "shard the optimizer's vectors: "
                "`process_group=compopt.distributed.Sharded(group)`."
            )
        # Writing to an expanded tensor fails, after the other player has already moved.
        if any(n > 1 and step == 0 for n, step in zip(param.shape, param.stride(), strict=True)):
            raise ValueError(
                f"`{name}` must hold tensors whose entries do not share memory, got an "
                f"expanded one of shape {tuple(param.shape)}. Clone it."
            )
    if len({id(param) for param in params}) < len(params):
        raise ValueError(f"`{name}` holds the same parameter more than once. Give each once.")
    check_one_device(name, params)


def is_sharded(value: object) -> bool:
    """Return True if ``value`` is a sharded tensor, of which this process has only a part."""
    # Do not import the modules, which is slow: if one is not loaded, no such tensor exists.
    modules = {
        "torch.distributed.tensor": "DTensor",
        "torch.distributed._shard.sharded_tensor": "ShardedTensor",
    }
    return any(
        name in sys.modules and isinstance(value, getattr(sys.modules[name], kind))
        for name, kind in modules.items()
    )


def check_trainable(player: object, groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise if ``player`` has only plain tensors and none of them requires a gradient.

    Parameters of modules may be frozen: they can be trained later.
    """
    own = [param for group in groups if group["player"] == player for param in group["params"]]
    if not any(param.requires_grad or isinstance(param, torch.nn.Parameter) for param in own):
        raise ValueError(
            f"The tensors of {called(player)} do not require gradients: a step could not move "
            "them. Call `requires_grad_()` on them before the loss is computed."
        )


def check_one_device(name: str, params: Iterable[Tensor]) -> None:
    """Raise unless all tensors are on one device."""
    devices = {str(param.device) for param in params}
    if len(devices) > 1:
        raise ValueError(
            f"`{name}` must be on one device, got {sorted(devices)}. The players' products are "
            "vectors over all parameters; move the networks to one device."
        )


def has_hook(param: Tensor) -> bool:
    """Return True if a parameter has a hook on its gradient."""
    # Private attributes: torch has no public way to list hooks, or to run a backward pass without.
    return bool(param._backward_hooks or param._post_accumulate_grad_hooks)


def check_hooks(params: Sequence[Tensor]) -> None:
    """Raise if a parameter has a hook on its gradient: products would call it too."""
    for index, param in enumerate(params):
        if has_hook(param):
            raise ValueError(
                f"Parameters of a competitive step must have no hooks (`register_hook`, "
                f"`register_post_accumulate_grad_hook`), got one on parameter {index} of shape "
                f"{tuple(param.shape)}. Autograd would call it on every second-derivative product. "
                "Remove it, and work on gradients between `optimizer.backward(loss)`, which puts "
                "them into `.grad`, and `optimizer.step()`."
            )


def check_hooks_of_gradients(params: Iterable[Tensor], *, has_penalty: bool) -> None:
    """Raise if a hook on a parameter would not see the complete gradient exactly once.

    Args:
        params: parameters that are differentiated by once.
        has_penalty: whether a penalty is differentiated in addition to the loss.
    """
    for index, param in enumerate(params):
        if not has_hook(param):
            continue
        which = f"on parameter {index} of shape {tuple(param.shape)}"
        if getattr(param, "_post_accumulate_grad_hooks", None):
            raise ValueError(
                f"`register_post_accumulate_grad_hook` {which} would never be called: a step "
                "leaves `.grad` alone. Remove it, and do its work after `step`."
            )
        if has_penalty and getattr(param, "_backward_hooks", None):
            raise ValueError(
                f"`register_hook` {which} would see the gradients of the loss and of the penalty "
                "one by one. Remove it, or give a loss for each player that has the penalty in it: "
                "`(loss + min_penalty, max_penalty - loss)`."
            )


def check_loss(name: str, loss: object, device: torch.device) -> Tensor:
    """Return ``loss`` if it is a real scalar on ``device`` that has a graph."""
    if not isinstance(loss, Tensor):
        remedy = _call_it(loss) or " Pass the tensor itself, with its graph."
        if loss is None:
            remedy = " If a closure returned it, end that with `return loss`."
        raise TypeError(f"`{name}` must be a scalar tensor, got {type(loss).__name__}.{remedy}")
    if torch.is_inference_mode_enabled():
        raise ValueError(
            f"`{name}` must be used outside `torch.inference_mode()`, in which nothing is "
            "differentiated and new state could not be changed later. Leave the mode for the loss "
            "and the step, and `clone()` samples that were made in it."
        )
    if loss.numel() != 1 or not loss.is_floating_point():
        raise ValueError(
            f"`{name}` must be a real scalar that requires grad, got shape {tuple(loss.shape)} "
            f"and dtype {loss.dtype}. Reduce it, e.g. with `.mean()`."
        )
    if not loss.requires_grad:
        raise ValueError(
            f"`{name}` must be a scalar that requires grad, got one without a graph. A competitive "
            "step differentiates the loss itself: do not call `backward()`, `detach()` or "
            "`item()` on it, and compute it with gradients enabled. Frameworks that call "
            "`backward()` for you need their manual-optimization mode."
        )
    if loss.device != device:
        raise ValueError(
            f"`{name}` must be on the device of the parameters, {device}, got {loss.device}."
        )
    return loss


def check_penalty(player: object, grads: Sequence[Tensor | None]) -> None:
    """Raise if a penalty of ``player`` does not depend on that player's parameters."""
    if all(grad is None for grad in grads):
        name = f"{player}_penalty" if isinstance(player, str) else f"penalties[{player}]"
        raise ValueError(
            f"`{name}` must depend on parameters of {called(player)} that require grad, and would "
            "change nothing. Give each term to the player that lowers it."
        )


def check_takes_part(
    player: object, grads: Sequence[Tensor | None], penalty: Tensor | None
) -> tuple[int, ...]:
    """Return indices of the parameters without a gradient; none if there is a penalty.

    Raises:
        ValueError: if no parameter of ``player`` has a gradient and there is no penalty.
    """
    missing = tuple([index for index, grad in enumerate(grads) if grad is None])
    if penalty is None and len(missing) == len(grads):
        rule = f"`losses[{player}]` must depend on the parameters of {called(player)}."
        if isinstance(player, str):
            rule = "`loss` must depend on the parameters of both players; "
            rule += f"none of the {player} player's takes part."
        raise ValueError(f"{rule} {TAKES_PART} {how_to_move_alone(player)}")
    return () if penalty is not None else missing


def reached(loss: Tensor, owners: Mapping[int, K]) -> list[K]:
    """Return the players whose parameters ``loss`` depends on, in the order of ``owners``.

    Cost: a walk over the graph, which stops once all players are found.

    Args:
        loss: scalar with a graph.
        owners: maps the ``id`` of each parameter to its player.
    """
    players = list(dict.fromkeys(owners.values()))
    found: set[K] = set()
    for node in walk([loss.grad_fn]):
        variable = id(getattr(node, "variable", None))
        if variable in owners:
            found.add(owners[variable])
        if len(found) == len(players):
            break
    return [player for player in players if player in found]
