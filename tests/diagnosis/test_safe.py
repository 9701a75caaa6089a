"""Attention and recurrent networks with a second derivative, against their definitions."""

import copy
import math

import pytest
import torch
from dense import assert_close
from torch import Tensor, nn
from torch.nn import functional

from compopt import Game
from compopt.derivatives import Derivatives, differentiate
from compopt.diagnosis import double_backward_safe

DTYPE = torch.float64
FUSED = "_backward is not implemented"


def products(loss: Tensor, xs: list[Tensor], ys: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mixed products with fixed vectors."""
    mixed: Derivatives = differentiate(Game(loss), {"min": xs, "max": ys})
    generator = torch.Generator().manual_seed(5)
    u, v = (
        torch.randn(mixed.layouts[p].numel, generator=generator, dtype=DTYPE)
        for p in ("min", "max")
    )
    return mixed.mixed_product("min", v), mixed.mixed_product("max", u)


def assert_same_products(loss: Tensor, truth: Tensor, xs: list[Tensor], ys: list[Tensor]) -> None:
    assert_close(loss.detach(), truth.detach(), 1e-12, "loss")
    for product, expected in zip(products(loss, xs, ys), products(truth, xs, ys), strict=True):
        assert float(expected.norm()) > 1e-3
        assert_close(product, expected, 1e-10, "product")


def manual_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return scores.softmax(-1) @ value


def manual_multihead(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    parts = functional.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
    heads = [part.unflatten(-1, (module.num_heads, -1)).transpose(-3, -2) for part in parts]
    return module.out_proj(manual_attention(*heads).transpose(-3, -2).flatten(-2))


def manual_layer(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    x = layer.norm1(x + manual_multihead(layer.self_attn, x))
    return layer.norm2(x + layer.linear2(layer.linear1(x).relu()))


def manual_lstm(module: nn.LSTM, x: Tensor) -> Tensor:
    h = c = x.new_zeros(x.shape[0], module.hidden_size)
    outputs = []
    for step in x.unbind(1):
        gates = functional.linear(step, module.weight_ih_l0, module.bias_ih_l0)
        i, f, g, o = (gates + functional.linear(h, module.weight_hh_l0, module.bias_hh_l0)).chunk(
            4, -1
        )
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, 1)


def manual_gru(module: nn.GRU, x: Tensor) -> Tensor:
    h = x.new_zeros(x.shape[0], module.hidden_size)
    outputs = []
    for step in x.unbind(1):
        r, z, n = functional.linear(step, module.weight_ih_l0, module.bias_ih_l0).chunk(3, -1)
        hr, hz, hn = functional.linear(h, module.weight_hh_l0, module.bias_hh_l0).chunk(3, -1)
        z = (z + hz).sigmoid()
        h = (1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * h
        outputs.append(h)
    return torch.stack(outputs, 1)


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DTYPE, requires_grad=True)


def test_scaled_dot_product_attention():
    query, key, value = (leaf(2, 2, 4, 3) for _ in range(3))
    with pytest.raises(RuntimeError, match=FUSED):
        products(
            functional.scaled_dot_product_attention(query, key, value).cos().sum(), [query], [key]
        )
    with double_backward_safe():
        loss = functional.scaled_dot_product_attention(query, key, value).cos().sum()
    truth = manual_attention(query, key, value).cos().sum()
    assert_same_products(loss, truth, [query], [key, value])


@pytest.mark.parametrize(
    ("module", "manual"),
    [
        pytest.param(
            lambda: nn.MultiheadAttention(6, 2, batch_first=True, dtype=DTYPE),
            manual_multihead,
            id="MultiheadAttention",
        ),
        pytest.param(
            lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0, batch_first=True, dtype=DTYPE),
            manual_layer,
            id="TransformerEncoderLayer",
        ),
    ],
)
def test_attention_modules(module, manual):
    network, x = module(), leaf(2, 4, 6)
    params = list(network.parameters())

    def loss() -> Tensor:
        is_attention = isinstance(network, nn.MultiheadAttention)
        out = network(x, x, x, need_weights=False)[0] if is_attention else network(x)
        return out.cos().sum()

    with pytest.raises(RuntimeError, match=FUSED):
        products(loss(), [x], params)
    with double_backward_safe():
        safe = loss()
    assert_same_products(safe, manual(network, x).cos().sum(), [x], params)


@pytest.mark.parametrize(
    ("kind", "manual"), [(nn.LSTM, manual_lstm), (nn.GRU, manual_gru)], ids=["LSTM", "GRU"]
)
def test_recurrent_modules(kind, manual):
    network = kind(3, 4, batch_first=True, dtype=DTYPE)
    x, params = leaf(2, 5, 3), list(network.parameters())
    truth = manual(network, x).cos().sum()
    with double_backward_safe():
        safe = network(x)[0].cos().sum()
    assert_same_products(safe, truth, [x], params)


def test_recurrent_kernel_of_the_cpu_needs_no_guard():
    network = nn.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3, requires_grad=True)
    players = {"min": [x], "max": list(network.parameters())}
    mixed = differentiate(Game(network(x)[0].cos().sum()), players)
    v = torch.randn(mixed.layouts["max"].numel)
    exact, x64 = copy.deepcopy(network).double(), x.detach().double().requires_grad_()
    players = {"min": [x64], "max": list(exact.parameters())}
    truth = differentiate(Game(manual_lstm(exact, x64).cos().sum()), players)
    assert_close(
        mixed.mixed_product("min", v).double(), truth.mixed_product("min", v.double()), 1e-5
    )


def settings() -> list[bool]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return [
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cudnn.enabled,
    ]


@pytest.mark.parametrize("recurrent", [True, False])
def test_settings_inside_and_after(recurrent):
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    try:
        before = settings()
        with double_backward_safe(recurrent=recurrent):
            assert settings() == [False, False, False, True, not recurrent]
        assert settings() == before

        def fail() -> None:
            with double_backward_safe(recurrent=recurrent):
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert settings() == before
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(True)


def test_settings_that_were_off_stay_off():
    torch.backends.cudnn.enabled = False
    try:
        with double_backward_safe(recurrent=False):
            assert not torch.backends.cudnn.enabled
        assert not torch.backends.cudnn.enabled
    finally:
        torch.backends.cudnn.enabled = True


def test_nests():
    before = settings()
    with double_backward_safe():
        with double_backward_safe(recurrent=False):
            assert settings() == [False, False, False, True, False]
        assert settings() == [False, False, False, True, False]
    assert settings() == before
