"""What must be equal on the processes that share an optimizer's steps."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from compopt._checks import is_sharded
from compopt.distributed.fingerprint import fingerprints, number_of
from compopt.distributed.meeting import Terms


def terms_of(
    param_groups: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    settings: Mapping[str, str],
    state: Mapping[Tensor, Mapping[str, Any]] | None,
    state_keys: Callable[[Any], Sequence[str]],
) -> Terms:
    """Return what must be equal.

    Args:
        param_groups: the groups of the optimizer.
        keys: the hyperparameters of a group.
        settings: further settings, as texts by name.
        state: the state of the optimizer; None to compare neither state nor parameters.
        state_keys: returns the names of the vectors that a player keeps.

    Cost: some microseconds, and with ``state`` three passes over parameters and state, and a read
    on the host.
    """
    values = [plain(group[key]) for group in param_groups for key in keys]
    params = [param for group in param_groups for param in group["params"]]
    # These determine the sizes of messages. Shapes are compared along with the parameters.
    sizes = array("q")
    for param in params:
        sizes.extend((param.requires_grad, param.numel(), param.element_size()))
    setup = number_of(repr((values, settings)).encode() + sizes.tobytes())

    def describe() -> dict[str, str]:
        names = [
            f"`{key}` of group {index} ({group['player']})"
            for index, group in enumerate(param_groups)
            for key in keys
        ]
        texts = {**dict(zip(names, values, strict=True)), **settings}
        kinds = {f"parameter {i}": _kind(param) for i, param in enumerate(params)}
        return {**texts, "number of parameters": str(len(params)), **kinds}

    if state is None:
        return Terms(setup, 0, 0, describe)
    entries = [
        state.get(param, {}).get(key)
        for group in param_groups
        for param in group["params"]
        for key in ("step", *state_keys(group["player"]))
    ]
    entries += [group[key] for group in param_groups for key in keys]
    # Sharded tensors differ between processes.
    kept = [e if isinstance(e, Tensor) and not is_sharded(e) else None for e in entries]
    numbers = fingerprints([*params, *kept])
    kinds = str([_kind(param) for param in params]).encode()
    return Terms(
        setup,
        number_of(kinds + array("q", numbers[: len(params)]).tobytes()),
        number_of(array("q", numbers[len(params) :]).tobytes()),
        describe,
    )


def plain(value: object) -> str:
    """Return a text that is equal on processes with equal values: without memory addresses."""
    if value is None or isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, float | int | Real):
        # 1 and 1.0 are the same setting.
        return repr(float(value)).removesuffix(".0")
    if isinstance(value, Tensor):
        # Tensors on a device are compared along with the state, without a separate read.
        return repr(value.tolist()) if value.device.type == "cpu" else f"on {value.device.type}"
    if isinstance(value, tuple | list):
        return f"({', '.join(plain(entry) for entry in value)})"
    attributes = vars(value) if hasattr(value, "__dict__") else {}
    simple = [
        f"{name}={plain(entry)}"
        for name, entry in attributes.items()
        if entry is None or isinstance(entry, bool | str | Real)
    ]
    return f"{type(value).__qualname__}({', '.join(simple)})"


def _kind(param: Tensor) -> str:
    trained = "trained" if param.requires_grad else "frozen"
    return f"{trained}, {tuple(param.shape)}, {param.dtype}"
