"""Each way in which second derivatives fail, with the module and the remedy that are named."""

import re

import pytest
import torch
from autograd_errors import CUDNN, GRID_SAMPLE
from preflight_games import (
    WIDTH,
    Attention,
    Identity,
    Layer,
    Once,
    healthy,
    overwrite,
    play,
    reentrant,
    trouble,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from compopt import Game
from compopt.diagnosis import PreflightError, double_backward_safe, preflight


class _Kernel(Once):
    """Stands for a backward in a language that autograd does not see."""

    @staticmethod
    def backward(ctx, grad):
        with torch.no_grad():
            return grad * ctx.saved_tensors[0].exp()


class _Twice(Once):
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].exp()


class _Round(Once):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


def failing_second(text: str) -> type[torch.autograd.Function]:
    """Return an identity function whose double backward raises ``text``."""

    class First(Identity):
        @staticmethod
        def backward(ctx, grad):
            return Second.apply(grad)

    class Second(Identity):
        @staticmethod
        def backward(ctx, vector):
            raise RuntimeError(text)

    return First


@pytest.mark.parametrize(
    ("module", "name", "node", "remedy"),
    [
        pytest.param(
            Attention,
            "max_player.encoder.1.attn (MultiheadAttention)",
            "ScaledDotProductFlashAttentionForCpuBackward0",
            "inside `compopt.double_backward_safe()`",
            id="attention",
        ),
        pytest.param(
            lambda: Layer(lambda x: torch.cdist(x, x[:WIDTH], p=3.0)),
            "max_player.encoder.1 (Layer)",
            "CdistBackward0",
            "Write it out in elementary torch operations",
            id="other-operation",
        ),
        pytest.param(
            lambda: Layer(failing_second(CUDNN).apply),
            "max_player.encoder.1 (Layer)",
            "FirstBackward",
            "the recurrent part of the forward pass inside `compopt.double_backward_safe()`",
            id="recurrent",
        ),
        pytest.param(
            lambda: Layer(failing_second(GRID_SAMPLE).apply),
            "max_player.encoder.1 (Layer)",
            "FirstBackward",
            "torch.gather",
            id="grid-sample",
        ),
        pytest.param(
            lambda: Layer(failing_second("something else").apply),
            "max_player.encoder.1 (Layer)",
            "FirstBackward",
            "torch reports: something else",
            id="unknown",
        ),
        pytest.param(
            lambda: Layer(reentrant),
            "max_player.encoder.1 (Layer)",
            "CheckpointFunctionBackward",
            "use_reentrant=False",
            id="re-entrant-checkpoint",
        ),
        pytest.param(
            lambda: Layer(overwrite),
            "max_player.encoder.1 (Layer)",
            "SigmoidBackward0",
            "out-of-place",
            id="in-place",
        ),
        pytest.param(
            lambda: Layer(Once.apply),
            "max_player.encoder.1 (Layer)",
            "OnceBackward",
            "without `once_differentiable`",
            id="once-differentiable",
        ),
        pytest.param(
            lambda: Layer(_Kernel.apply),
            "max_player.encoder.1 (Layer)",
            "_KernelBackward",
            "backward in differentiable torch operations",
            id="kernel",
        ),
    ],
)
def test_names_module_and_remedy(module, name, node, remedy):
    text = trouble(module())
    assert f"`{node}` of {name}" in text
    assert remedy in text


def test_remedies_work():
    class Safe(Attention):
        def forward(self, x):
            with double_backward_safe():
                return super().forward(x)

    healthy(Safe())
    healthy(Layer(lambda x: checkpoint(torch.sin, x, use_reentrant=False)))
    healthy(Layer(_Twice.apply))
    healthy(Layer(lambda x: 2 * x.sigmoid() + (x.sigmoid() + 1)))


def test_rightly_constant_backward_is_no_trouble():
    healthy(Layer(lambda x: x + _Round.apply(x)))
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    assert preflight(lambda: (x * y).sum() + _Kernel.apply(x).sum(), [x], [y]).interacts


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_on_the_cpu_pass(kind):
    recurrent = kind(WIDTH, WIDTH)
    healthy(Layer(lambda x: recurrent(x)[0]))


def test_text_of_an_error_is_kept():
    text = trouble(Attention())
    assert text.startswith("The mixed product for min_player (Sequential) failed in `Scaled")
    assert "torch reports: derivative for aten::" in text
    assert text.count("double_backward_safe") == 1


def test_loss_without_graph():
    loss_fn, min_player, max_player = play(nn.Tanh())
    with pytest.raises(PreflightError, match="`loss_fn` returned a loss without a graph"):
        preflight(lambda: loss_fn().detach(), min_player, max_player)
    with torch.no_grad():
        preflight(loss_fn, min_player, max_player)


def test_player_without_gradient_is_named():
    _, min_player, max_player = play(nn.Tanh())
    z = torch.randn(6, 2)
    with pytest.raises(PreflightError) as raised:
        preflight(lambda: max_player(min_player(z).detach()).mean(), min_player, max_player)
    text = "The loss does not depend on min_player (Sequential): none of its 2 parameters"
    assert str(raised.value).startswith(text)
    with pytest.raises(PreflightError, match=r"depend on max_player: none of its 4 parameters"):
        preflight(lambda: min_player(z).mean(), min_player, max_player.parameters())


@pytest.mark.parametrize(
    ("function", "pattern"),
    [
        pytest.param(
            lambda x: (-x.abs()).log(),
            r"^The loss is nan\. .+ is max_player\.encoder\.1 \(Layer\)\. A square root",
            id="loss",
        ),
        pytest.param(
            lambda x: (0 * x).sqrt(),
            r"^The gradient of min_player\.0\.weight is not finite\. The first such value is in "
            r"`SqrtBackward0` of max_player\.encoder\.1 \(Layer\)\. A square root",
            id="gradient",
        ),
        pytest.param(
            lambda x: x + (0 * x).norm(dim=1, keepdim=True),
            r"^The mixed product for min_player \(Sequential\) is not finite\. "
            r"The first such value is in "
            r"`LinalgVectorNormBackward0` of max_player\.encoder\.1 \(Layer\)\. A square root",
            id="product",
        ),
    ],
)
def test_not_finite(function, pattern):
    text = trouble(Layer(function))
    assert re.search(pattern, text), text
    assert "add a small constant" in text


def test_not_finite_in_the_second_direction_only():
    class Spoils(Identity):
        @staticmethod
        def backward(ctx, grad):
            return grad * torch.nan

    class Passes(Identity):
        @staticmethod
        def backward(ctx, grad):
            return Spoils.apply(grad)

    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    with pytest.raises(PreflightError, match="mixed product for max_player is not finite"):
        preflight(lambda: (Passes.apply(x.clone()) * y).sum(), [x], [y])


def test_trouble_in_a_penalty_is_named():
    loss_fn, min_player, max_player = play(nn.Tanh())
    x = torch.randn(2, WIDTH)

    def overwritten() -> Game:
        return Game(loss_fn(), max_penalty=overwrite(max_player.entry(x)).sum())

    pattern = "of `max_penalty` failed in `SigmoidBackward0` of the loss function, outside"
    with pytest.raises(PreflightError, match=pattern):
        preflight(overwritten, min_player, max_player)

    def zero_root() -> Game:
        return Game(loss_fn(), max_penalty=(0 * max_player.entry(x)).sum().sqrt())

    with pytest.raises(PreflightError, match=r"max_player\.entry\.weight is not finite"):
        preflight(zero_root, min_player, max_player)


def test_sparse_gradient_is_named():
    table, y = nn.Embedding(3, 2, sparse=True), torch.ones(2, requires_grad=True)
    with pytest.raises(PreflightError, match=r"min_player\.weight must be dense.+sparse=False"):
        preflight(lambda: (table(torch.tensor([0, 2])) @ y).sum(), table, [y])
