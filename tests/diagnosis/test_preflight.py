"""Each way in which second derivatives fail, with the module and the remedy that are named."""

import contextlib
import dataclasses
import gc
import re

import pytest
import torch
from saved_tensors import counting_saved_tensors
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from compopt import Game
from compopt._remedies import CAUSES, explain
from compopt.diagnosis import PreflightError, PreflightReport, double_backward_safe, preflight

WIDTH = 4


class Layer(nn.Module):
    """A module made of a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Critic(nn.Module):
    """A critic whose ``encoder`` holds the module under test, two levels deep."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.entry = nn.Linear(WIDTH, WIDTH)
        self.encoder = nn.Sequential(nn.Tanh(), module)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x):
        return self.head(self.encoder(self.entry(x))).square()


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(2, WIDTH), nn.Tanh())


def play(module: nn.Module):
    """Return the loss function and the players of a game with ``module`` inside of the critic."""
    min_player, max_player = generator(), Critic(module)
    z = torch.randn(6, 2)
    return (lambda: max_player(min_player(z)).mean()), min_player, max_player


def trouble(module: nn.Module) -> str:
    with pytest.raises(PreflightError) as raised:
        preflight(*play(module))
    return str(raised.value)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 2)

    def forward(self, x):
        return self.attn(x, x, x, need_weights=False)[0]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].exp()


class _Kernel(_Once):
    """Stands for a backward in a language that autograd does not see."""

    @staticmethod
    def backward(ctx, grad):
        with torch.no_grad():
            return grad * ctx.saved_tensors[0].exp()


class _Twice(_Once):
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].exp()


class _Round(_Once):
    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


def failing_second(text: str) -> type[torch.autograd.Function]:
    """Return an identity function whose double backward raises ``text``."""

    class First(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return Second.apply(grad)

    class Second(torch.autograd.Function):
        @staticmethod
        def forward(ctx, grad):
            return grad.clone()

        @staticmethod
        def backward(ctx, vector):
            raise RuntimeError(text)

    return First


def overwrite(x: Tensor) -> Tensor:
    out = x.sigmoid()
    return out * 2 + out.add_(1)


def reentrant(x: Tensor) -> Tensor:
    return checkpoint(torch.sin, x, use_reentrant=True)


CUDNN = (
    "the derivative for '_cudnn_rnn_backward' is not implemented. Double backwards is not "
    "supported for CuDNN RNNs due to limitations in the CuDNN API. To run double backwards, "
    "please disable the CuDNN backend temporarily while running the forward pass of your RNN."
)
GRID_SAMPLE = "derivative for aten::grid_sampler_2d_backward is not implemented"
COMPILED = "torch.compile with aot_autograd does not currently support double backward"


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
            lambda: Layer(_Once.apply),
            "max_player.encoder.1 (Layer)",
            "_OnceBackward",
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


def healthy(module: nn.Module) -> PreflightReport:
    report = preflight(*play(module))
    assert report.interacts
    return report


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


def test_failure_within_a_gradient_penalty_is_located():
    _, min_player, max_player = play(Attention())
    z = torch.randn(6, 2)

    def loss_fn() -> Tensor:
        fake = min_player(z)
        (slope,) = torch.autograd.grad(max_player(fake).sum(), fake, create_graph=True)
        return slope.square().sum()

    with pytest.raises(PreflightError, match=r"of max_player\.encoder\.1\.attn \(Multihead"):
        preflight(loss_fn, min_player, max_player)


def test_known_error_within_the_loss_function_is_explained():
    _, min_player, max_player = play(Layer(reentrant))
    z = torch.randn(6, 2)

    def loss_fn() -> Tensor:
        fake = min_player(z)
        return torch.autograd.grad(max_player(fake).sum(), fake, create_graph=True)[0].sum()

    with pytest.raises(PreflightError, match=r"The loss function failed.+use_reentrant=False"):
        preflight(loss_fn, min_player, max_player)


def test_other_errors_of_the_loss_function_pass_through():
    _, min_player, max_player = play(nn.Tanh())
    error = RuntimeError("the user's own")

    def loss_fn() -> Tensor:
        raise error

    with pytest.raises(RuntimeError) as raised:
        preflight(loss_fn, min_player, max_player)
    assert raised.value is error


def test_running_out_of_memory_is_not_blamed_on_derivatives():
    class Full(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        preflight(*play(Layer(Full.apply)))


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
    assert COMPILED in str(raised.value)
    assert "the uncompiled module" in str(raised.value)


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
            r"^The gradient of min_player\.0\.weight is not finite\. It becomes so in "
            r"`SqrtBackward0` of max_player\.encoder\.1 \(Layer\)\. A square root",
            id="gradient",
        ),
        pytest.param(
            lambda x: x + (0 * x).norm(dim=1, keepdim=True),
            r"^The mixed product for min_player \(Sequential\) is not finite\. It becomes so in "
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
    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.nan

    class Passes(Spoils):
        @staticmethod
        def backward(ctx, grad):
            return Spoils.apply(grad)

    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    with pytest.raises(PreflightError, match="mixed product for max_player is not finite"):
        preflight(lambda: (Passes.apply(x.clone()) * y).sum(), [x], [y])


def test_report_of_a_linear_critic():
    min_player, max_player = generator(), nn.Linear(WIDTH, 1)
    min_player.append(nn.Linear(WIDTH, WIDTH))
    z, real = torch.randn(6, 2), torch.randn(6, WIDTH)
    unused = nn.Parameter(torch.ones(3))
    max_player.register_parameter("unused", unused)
    expected = float((max_player(real).mean() - max_player(min_player(z)).mean()).detach())
    report = preflight(
        lambda: max_player(real).mean() - max_player(min_player(z)).mean(), min_player, max_player
    )
    assert report.loss == pytest.approx(expected)
    assert report.without_gradient == ("max_player.unused",)
    assert report.without_mixed == ("max_player.bias", "max_player.unused")
    assert report.interacts
    assert report.seconds_gradient > 0
    assert min(report.seconds_product.values()) > 0
    text = str(report)
    assert "the players interact" in text
    assert "no gradient: max_player.unused" in text
    assert "no mixed derivative: max_player.bias, max_player.unused" in text


def test_players_that_do_not_interact():
    x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    report = preflight(lambda: x.square().sum() - y.square().sum(), [x], [y])
    assert not report.interacts
    assert report.without_mixed == ("min_player[0]", "max_player[0]")
    assert "do not interact: this is gradient descent-ascent" in str(report)
    assert "no gradient: none" in str(report)


def test_terms_of_one_player_count_as_gradients():
    x, y, z = (torch.ones(2, requires_grad=True) for _ in range(3))
    report = preflight(lambda: Game((x * y).sum(), max_penalty=z.square().sum()), [x], [y, z])
    assert report.without_gradient == ()
    assert report.without_mixed == ("max_player[1]",)


def test_penalty_is_differentiated_by_its_own_player_only():
    x, y = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)

    def zero_root() -> Game:
        return Game((x * y).sum(), max_penalty=x.sum().sqrt() + y.square().sum())

    assert preflight(zero_root, [x], [y]).interacts


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


def test_names_of_parameters_come_from_any_module():
    first, second, critic = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1)
    extra, lone = nn.Linear(1, 1), nn.Parameter(torch.ones(1))
    z = torch.randn(3, 2)
    players = {
        "min_player": [first, second],
        "max_player": [*critic.parameters(), *extra.parameters(), lone],
    }
    report = preflight(lambda: critic(second(first(z))).mean(), **players, modules=[extra, critic])
    assert report.without_gradient == ("modules[0].weight", "modules[0].bias", "max_player[4]")
    players["max_player"] = critic.named_parameters()
    players["min_player"] = iter([first, second])
    report = preflight(lambda: critic(second(first(z))).mean() + 0 * lone, **players)
    assert report.without_mixed == ("bias",)
    second.register_parameter("spare", nn.Parameter(torch.ones(1)))
    players = {"min_player": [first, second], "max_player": critic}
    report = preflight(lambda: critic(second(first(z))).mean(), **players)
    assert report.without_gradient == ("min_player[1].spare",)


def test_operation_outside_of_modules_is_said_to_be_so():
    x, y = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    pattern = "`CdistBackward0` of the loss function, outside of named modules"
    with pytest.raises(PreflightError, match=pattern):
        preflight(lambda: torch.cdist(x, y, p=3.0).sum(), [x], [y])


@dataclasses.dataclass
class Features:
    """What a module may take and return in place of a tensor."""

    values: Tensor


class Fails(nn.Module):
    def forward(self, x):
        raise KeyError


class Outer(nn.Module):
    """Has an operation of its own between its submodules, which exchange it in a container."""

    def __init__(self, pack, unpack):
        super().__init__()
        self.fails = Fails()
        self.before = Layer(lambda x: pack(x + 1))
        self.after = Layer(lambda packed: unpack(packed).tanh())
        self.pack, self.unpack = pack, unpack

    def forward(self, x):
        with contextlib.suppress(KeyError):
            self.fails(x)
        h = self.unpack(self.before(x.exp()))
        return self.after(x=self.pack(torch.cdist(h, h[:WIDTH], p=3.0)))


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        pytest.param(lambda x: x, lambda x: x, id="tensor"),
        pytest.param(lambda x: [x], lambda x: x[0], id="list"),
        pytest.param(lambda x: (None, {"a": x}), lambda x: x[1]["a"], id="mapping"),
        pytest.param(Features, lambda x: x.values, id="dataclass"),
    ],
)
def test_operation_belongs_to_the_innermost_module_that_runs_it(pack, unpack):
    assert "`CdistBackward0` of max_player.encoder.1 (Outer)" in trouble(Outer(pack, unpack))


def test_operation_after_a_module_belongs_to_the_enclosing_one():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            return overwrite(self.first(x))

    assert "of max_player.encoder.1 (Inner)" in trouble(Inner())


def test_frozen_parameters_are_left_out():
    loss_fn, min_player, max_player = play(nn.Tanh())
    max_player.entry.weight.requires_grad_(False)
    report = preflight(loss_fn, min_player, max_player)
    assert report.without_gradient == ()
    assert not max_player.entry.weight.requires_grad


class Replaces(nn.Module):
    """A module that puts a new tensor in place of its buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count = self.count + 1
        return x


class Noisy(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.1) + 1e-3 * torch.randn_like(x)


@pytest.mark.parametrize("fails", [False, True], ids=["passes", "fails"])
def test_everything_is_as_before(fails):
    modern = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))
    classic = torch.nn.utils.spectral_norm(nn.Linear(WIDTH, WIDTH))
    layers = [modern, classic, nn.BatchNorm1d(WIDTH), Replaces(), Noisy()]
    inner = nn.Sequential(*layers, Layer(_Once.apply if fails else torch.sin))
    loss_fn, min_player, max_player = play(inner)
    for param in max_player.parameters():
        param.grad = torch.full_like(param, 7.0)
    norm = inner[2]
    version = inner[2].running_mean._version

    def snapshot() -> list[Tensor]:
        tensors = [*max_player.state_dict().values(), *min_player.state_dict().values()]
        return [*(tensor.clone() for tensor in tensors), torch.get_rng_state()]

    before, buffers = snapshot(), list(max_player.buffers())
    if fails:
        with pytest.raises(PreflightError):
            preflight(loss_fn, min_player, max_player)
    else:
        preflight(loss_fn, min_player, max_player)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(), strict=True))
    assert all(a is b for a, b in zip(buffers, max_player.buffers(), strict=True))
    assert norm.running_mean._version > version
    assert all(bool((param.grad == 7).all()) for param in max_player.parameters())
    assert all(param.grad is None for param in min_player.parameters())
    for module in [*min_player.modules(), *max_player.modules()]:
        assert not module._forward_hooks
        assert len(module._forward_pre_hooks) == (module is classic)
    loss_fn()
    assert not torch.equal(before[-1], torch.get_rng_state())
    assert norm.num_batches_tracked == 1


def test_buffers_that_a_forward_pass_only_reads_are_not_written():
    norm = nn.BatchNorm1d(WIDTH).eval()
    version = norm.running_mean._version
    healthy(norm)
    assert norm.running_mean._version == version


@pytest.mark.parametrize("module", [nn.Tanh, Attention], ids=["passes", "fails"])
def test_graph_is_freed(module):
    loss_fn, min_player, max_player = play(module())
    gc.disable()
    try:
        with contextlib.suppress(PreflightError), counting_saved_tensors() as saved:
            preflight(loss_fn, min_player, max_player)
        # Torch itself holds what a failed backward pass has queued until the next one.
        torch.ones(1, requires_grad=True).exp().backward()
        assert saved.total > 20
        assert saved.alive() == 0
    finally:
        gc.enable()


def test_loss_function_runs_once():
    loss_fn, min_player, max_player = play(nn.Tanh())
    calls = []
    preflight(lambda: calls.append(1) or loss_fn(), min_player, max_player)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"min_player": 3}, TypeError, "`min_player` must be a module, modules, or an iterable"),
        ({"max_player": []}, ValueError, "`max_player` is empty"),
        ({"max_player": nn.Tanh()}, ValueError, "`max_player` is empty"),
        ({"modules": [3]}, TypeError, "`modules` must hold modules, got int"),
        ({"loss_fn": lambda: 3.0}, TypeError, "`loss` must be a scalar tensor, got float"),
        (
            {"loss_fn": lambda: torch.ones(2, requires_grad=True)},
            ValueError,
            "`loss` must be a real scalar that requires grad, got shape (2,)",
        ),
    ],
)
def test_invalid_arguments(arguments, error, text):
    loss_fn, min_player, max_player = play(nn.Tanh())
    given = {"loss_fn": loss_fn, "min_player": min_player, "max_player": max_player, **arguments}
    with pytest.raises(error) as raised:
        preflight(**given)
    assert text in str(raised.value)
    assert not isinstance(raised.value, PreflightError)


def test_shared_parameters_are_refused():
    loss_fn, min_player, max_player = play(nn.Tanh())
    with pytest.raises(ValueError, match="`min_player` and `max_player` must be disjoint; 2 "):
        preflight(loss_fn, min_player, [max_player, min_player])


def test_report_is_frozen():
    report = healthy(nn.Tanh())
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.loss = 0.0


ERRORS = {
    "derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not "
    "implemented": "double_backward_safe",
    "derivative for aten::_scaled_dot_product_efficient_attention_backward is not "
    "implemented": "attention part",
    CUDNN: "recurrent part",
    "derivative for aten::miopen_rnn_backward is not implemented": "recurrent part",
    GRID_SAMPLE: "torch.gather",
    COMPILED: "uncompiled module",
    "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an "
    "`inputs` parameter to .backward().": "use_reentrant=False",
    "Checkpointing is not compatible with .grad() or when an `inputs` parameter is passed to "
    ".backward().": "use_reentrant=False",
    "Expected to have finished reduction in the prior iteration before starting a new "
    "one.": ".module",
    "one of the variables needed for gradient computation has been modified by an inplace "
    "operation: [torch.FloatTensor [4, 4]] is at version 1": "out-of-place",
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed).": "Do not call `backward()`",
    "element 0 of tensors does not require grad and does not have a grad_fn": "gradients enabled",
    "trying to differentiate twice a function that was marked with "
    "@once_differentiable": "without `once_differentiable`",
    "the derivative for '_cdist_backward' is not implemented.": "elementary",
    "Trying to backward through ns::op.default but no autograd formula was registered.": "element",
}


@pytest.mark.parametrize("text", ERRORS, ids=range(len(ERRORS)))
def test_errors_of_autograd_are_explained(text):
    remedy = explain(RuntimeError(text))
    assert remedy is not None
    assert ERRORS[text] in remedy


def test_each_cause_has_an_error():
    explained = {explain(RuntimeError(text)) for text in ERRORS}
    assert explained == {str(cause) for cause in CAUSES}


@pytest.mark.parametrize(
    "text", ["mat1 and mat2 shapes cannot be multiplied", "scaled_dot_product: bad shape", ""]
)
def test_other_errors_are_not_explained(text):
    assert explain(RuntimeError(text)) is None


def test_error_of_a_freed_graph_is_explained():
    x = torch.ones(2, requires_grad=True)
    loss = x.exp().sum()
    loss.backward()
    with pytest.raises(RuntimeError) as raised:
        torch.autograd.grad(loss, x)
    assert "Do not call `backward()`" in str(explain(raised.value))
