"""Copies of all that an optimizer holds, compared bit for bit."""

import torch
from torch import Tensor, nn


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of ``tensor``, so that NaN equals NaN and 0.0 differs from -0.0."""
    return tensor.detach().reshape(-1).clone().view(torch.uint8)


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise unless two snapshots have the same names and the same bits."""
    assert actual.keys() == expected.keys(), (
        f"only in one of them: {sorted(actual.keys() ^ expected.keys())}"
    )
    for name, tensor in actual.items():
        other = expected[name]
        assert tensor.dtype == other.dtype, f"{name}: {tensor.dtype} is not {other.dtype}"
        assert torch.equal(bits(tensor), bits(other)), (
            f"{name} differs by {(tensor.double() - other.double()).abs().max().item():.2e}: "
            f"{tensor.tolist()} is not {other.tolist()}"
        )


def all_params(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def snapshot(optimizer: torch.optim.Optimizer, *modules: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters, state and buffers by name."""
    tensors = {"number of states": torch.tensor(len(optimizer.state))}
    for index, param in enumerate(all_params(optimizer)):
        tensors[f"parameter {index}"] = param.detach().clone()
        for key, value in optimizer.state.get(param, {}).items():
            tensors[f"state {index} {key}"] = value.detach().clone()
    for number, module in enumerate(modules):
        for name, buffer in module.named_buffers():
            tensors[f"buffer {number} {name}"] = buffer.clone()
    return tensors
