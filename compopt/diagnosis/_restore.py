"""Run a forward pass and restore all state that it changed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def restored(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Restore the modules' buffers and attributes and torch's random states on exit.

    Args:
        modules: modules to restore; submodules must be listed too. The values of buffers and the
            references of other attributes (modes, counters) are restored.
        device: its default generator is restored, and that of the CPU.
    """
    modules = list(modules)
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.clone())
        for module in modules
        for name, buffer in _own_buffers(module)
    ]
    attributes = [(vars(module), dict(vars(module))) for module in modules]
    devices = [] if device.type in ("cpu", "meta") else [device]
    device_type = devices[0].type if devices else "cuda"
    try:
        with torch.random.fork_rng(devices, device_type=device_type):
            yield
    finally:
        for present, saved_attributes in attributes:
            for name in present.keys() - saved_attributes.keys():
                del present[name]
            present.update(saved_attributes)
        for module, name, buffer, saved in buffers:
            _put_back(module, name, buffer, saved)


def _own_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.named_buffers(recurse=False, remove_duplicate=False))


def _put_back(module: nn.Module, name: str, buffer: Tensor, saved: Tensor) -> None:
    if getattr(module, name) is not buffer:
        setattr(module, name, buffer)
    # Write only if needed: it increments the version counter, which the caller's graphs check.
    if not torch.equal(buffer, saved):
        with torch.no_grad():
            buffer.copy_(saved)
