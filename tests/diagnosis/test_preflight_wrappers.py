"""Compiled modules and distributed wrappers are named rather than run."""

import pytest
import torch
from preflight_games import Layer, play, trouble
from torch import Tensor, nn

from compopt import CGD
from compopt._remedies import lost_to_a_compiler
from compopt.diagnosis import PreflightError, preflight


@pytest.mark.parametrize("wrapper", ["player", "submodule", "other"])
def test_compiled_module_is_named_and_not_run(wrapper):
    def run(x: Tensor) -> Tensor:
        raise AssertionError("must not run")

    compiled = torch.compile(Layer(run), backend="eager")
    loss_fn, min_player, max_player = play(compiled if wrapper == "submodule" else nn.Tanh())
    name, modules = "max_player.encoder.1", []
    if wrapper == "player":
        max_player = torch.compile(max_player, backend="eager")
        name = "max_player"
    elif wrapper == "other":
        name, modules = "modules[0]", [compiled]
    with pytest.raises(PreflightError) as raised:
        preflight(loss_fn, min_player, max_player, modules=modules)
    assert str(raised.value).startswith(f"{name} (OptimizedModule) cannot be used. ")
    assert "the uncompiled module" in str(raised.value)


def test_module_compiled_in_place_is_named():
    module = nn.Tanh()
    module.compile(backend="eager")
    assert "max_player.encoder.1 (Tanh) cannot be used." in trouble(module)


def test_compiled_function_is_recognised():
    loss_fn, min_player, max_player = play(nn.Tanh())
    compiled = torch.compile(loss_fn, backend="aot_eager", fullgraph=True)
    with pytest.raises(PreflightError) as raised:
        preflight(compiled, min_player, max_player)
    assert "A network compiled by `torch.compile` has no second derivative" in str(raised.value)
    assert "the uncompiled module" in str(raised.value)


def test_step_on_a_compiled_loss_is_refused():
    """The compiled backward pass of some releases gives gradients without a graph."""
    loss_fn, min_player, max_player = play(nn.Tanh())
    compiled = torch.compile(loss_fn, backend="aot_eager", fullgraph=True)
    before = [param.detach().clone() for param in max_player.parameters()]
    optimizer = CGD(min_player.parameters(), max_player.parameters())
    with pytest.raises(RuntimeError, match="the uncompiled module"):
        optimizer.step(compiled())
    assert all(map(torch.equal, before, max_player.parameters()))


class Constant(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    def backward(ctx, grad):
        return grad.detach().expand(3)


def test_gradients_without_graph_are_blamed_on_a_compiler_only_where_there_is_one():
    x = torch.ones(3, requires_grad=True)
    loss = Constant.apply(2 * x)
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    assert not grad.requires_grad
    assert not lost_to_a_compiler(loss, [grad, None])
    compiled = type("CompiledFunction", (Constant,), {}).apply(2 * x)
    assert lost_to_a_compiler(3 * compiled + 1, [grad, None])
    assert not lost_to_a_compiler(compiled, [x, None])


def test_distributed_wrapper_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        loss_fn, min_player, max_player = play(nn.Tanh())
        wrapped = nn.parallel.DistributedDataParallel(max_player)
        with pytest.raises(PreflightError) as raised:
            preflight(loss_fn, min_player, wrapped)
        preflight(loss_fn, min_player, wrapped.module)
    finally:
        torch.distributed.destroy_process_group()
    text = str(raised.value)
    assert text.startswith("max_player (DistributedDataParallel) cannot be used. ")
    assert "`.module`" in text


def test_synchronized_normalization_is_named():
    text = trouble(nn.SyncBatchNorm(4))
    assert "max_player.encoder.1 (SyncBatchNorm) cannot be used." in text
    assert "GroupNorm" in text
