"""Swapping layers changes how, not what: values, derivatives, state, hooks and errors."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from compopt import CGD
from compopt.nn import fuse, unfuse
from compopt.nn._layers import FusedBatchNorm2d, FusedLayerNorm, FusedSequential


def networks():
    """Return a generator and a critic with all kinds of layers that are swapped."""
    generator = nn.Sequential(
        nn.Linear(4, 24),
        nn.ReLU(),
        nn.BatchNorm1d(24),
        nn.Unflatten(1, (6, 2, 2)),
        nn.ConvTranspose2d(6, 5, 4, 2, 1),
        nn.BatchNorm2d(5, affine=False),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(5, 3, 3, 1, 1),
        nn.Softplus(),
    )
    critic = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6, momentum=None),
        nn.LeakyReLU(0.2),
        nn.InstanceNorm2d(6, affine=True),
        nn.Flatten(),
        nn.Linear(24, 8),
        nn.LayerNorm(8),
        nn.SiLU(),
        nn.Linear(8, 1),
    )
    return generator.double(), critic.double()


def twins():
    plain = networks()
    fused = copy.deepcopy(plain)
    for network in fused:
        fuse(network)
    return plain, fused


def game_loss(pair, noise, real):
    generator, critic = pair
    return critic(real).mean() - critic(generator(noise)).tanh().mean()


def batch():
    return torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 3, 4, 4, dtype=torch.float64)


def test_steps_and_statistics_follow_torchs_own_layers():
    pairs = twins()
    # Not ACGD: the bias before a batch norm has a zero gradient, whose rounding it would blow up.
    optimizers = [CGD(g.parameters(), d.parameters(), lr=1e-2) for g, d in pairs]
    for _ in range(5):
        data = batch()
        for pair, optimizer in zip(pairs, optimizers, strict=True):
            optimizer.step(game_loss(pair, *data))
    for plain, fused in zip(*pairs, strict=True):
        expected = plain.state_dict()
        assert list(fused.state_dict()) == list(expected)
        for name, value in fused.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-10, msg=name)


def test_report_names_what_was_swapped_and_what_was_left():
    class MyNorm(nn.BatchNorm2d):
        pass

    layers = [MyNorm(2), nn.BatchNorm2d(2), nn.Softplus(beta=2), nn.GroupNorm(1, 2), nn.RMSNorm(2)]
    network = nn.Sequential(*layers, nn.InstanceNorm2d(2, track_running_stats=True), nn.Tanh())
    report = fuse(network)
    assert report.swapped == {"1": "FusedBatchNorm2d"}
    whys = {"0": "subclass", "2": "beta", "3": "quicker", "4": "exact", "5": "running statistics"}
    assert list(report.left) == list(whys)
    for index, why in whys.items():
        assert why in report.left[index]
    assert str(report).startswith("1 layers swapped, 5 left alone")
    assert not fuse(network).swapped


def test_fuse_and_unfuse_keep_objects_state_and_classes():
    generator, _ = networks()
    layers, parameters = list(generator.modules()), list(generator.parameters())
    classes = [type(layer) for layer in layers]
    state = {name: value.data_ptr() for name, value in generator.state_dict().items()}
    fuse(generator)
    assert isinstance(generator, FusedSequential)
    assert isinstance(generator[5], nn.BatchNorm2d)
    for module in (generator, unfuse(generator)):
        assert list(map(id, module.modules())) == list(map(id, layers))
        assert list(map(id, module.parameters())) == list(map(id, parameters))
        assert {name: value.data_ptr() for name, value in module.state_dict().items()} == state
    assert [type(layer) for layer in layers] == classes


def test_copies_and_pickles():
    _, critic = networks()
    fuse(critic)
    buffer = io.BytesIO()
    torch.save(critic, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(critic), torch.load(buffer, weights_only=False)):
        assert [type(a) for a in twin.modules()] == [type(a) for a in critic.modules()]
        unfuse(twin)


NORMS = {
    "default": {},
    "no momentum": {"momentum": None},
    "no running statistics": {"track_running_stats": False},
    "not affine": {"affine": False},
    "large momentum": {"momentum": 0.9, "eps": 1e-1},
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", NORMS.values(), ids=NORMS)
def test_batch_norm_in_all_its_modes_bitwise(options, training):
    plain = nn.BatchNorm2d(3, **options)
    fused = copy.deepcopy(plain)
    fuse(fused)
    for layer in (plain, fused):
        layer.train(training)
    for _ in range(3):
        x = torch.randn(4, 3, 5, 5, requires_grad=True)
        assert torch.equal(plain(x), fused(x))
        # Without a graph, torch's own forward runs; it counts the batch just the same.
        with torch.no_grad():
            assert torch.equal(plain(x), fused(x))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, fused.state_dict()[name]), name


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (1, 3)),
        (nn.BatchNorm2d(3), (1, 3, 1, 1)),
        (nn.BatchNorm2d(3), (4, 3)),
        (nn.BatchNorm2d(3), (4, 5, 2, 2)),
        (nn.LayerNorm(3), (4, 5)),
    ],
    ids=str,
)
def test_errors_are_torchs_own(layer, shape):
    messages = []
    for one in (layer, copy.deepcopy(layer)):
        if messages:
            fuse(one)
        with pytest.raises((ValueError, RuntimeError)) as caught:
            one(torch.randn(shape, requires_grad=True))
        messages.append((caught.type, str(caught.value)))
    assert messages[0] == messages[1]


def test_empty_batch():
    fused = nn.LayerNorm(3)
    fuse(fused)
    assert fused(torch.randn(0, 3, requires_grad=True)).shape == (0, 3)


def test_a_pair_is_computed_in_one():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    fuse(network)
    y = network(torch.randn(4, 3, 2, 2, requires_grad=True))
    assert y.grad_fn.name().startswith("_Normalize")


@pytest.mark.parametrize("watched", [0, 1])
def test_hooks_see_what_they_saw(watched):
    plain = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    seen = []
    plain[watched].register_forward_hook(lambda layer, args, output: seen.append(output))
    fused = copy.deepcopy(plain)
    fuse(fused)
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    assert torch.equal(plain(x), fused(x))
    assert len(seen) == 2
    assert torch.equal(*seen)


def test_layers_used_outside_their_sequential():
    plain, _ = networks()
    fused = copy.deepcopy(plain)
    fuse(fused)
    x = torch.randn(3, 24, dtype=torch.float64, requires_grad=True)
    assert torch.equal(plain[2](x), fused[2](x))
    y = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(plain[5](y), fused[5](y))
    assert (fused[5](y) < 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    plain = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.LayerNorm(8), nn.SiLU())
    fused = copy.deepcopy(plain)
    fuse(fused)
    outputs = []
    x = torch.randn(16, 8)
    for network in (plain, fused):
        with torch.autocast("cpu", dtype):
            y = network(x)
        parameters = list(network.parameters())
        first = torch.autograd.grad(y.float().square().mean(), parameters, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), parameters)
        outputs.append((y, first, second))
        assert [g.dtype for g in second] == [p.dtype for p in parameters]
    (y, first, second), (fused_y, fused_first, fused_second) = outputs
    assert torch.equal(y, fused_y)
    # Autocast rounds each intermediate result: one unit in the last place of its type, a few times.
    rtol = 16 * torch.finfo(dtype).eps
    for ours, theirs in ((fused_first, first), (fused_second, second)):
        # As one vector: the gradient of the bias before the batch norm is nothing but rounding.
        ours, theirs = (torch.cat([g.flatten() for g in grads]) for grads in (ours, theirs))
        assert (ours - theirs).norm() <= rtol * theirs.norm()


def test_half_parameters_throughout():
    plain = nn.BatchNorm2d(3).bfloat16()
    fused = copy.deepcopy(plain)
    fuse(fused)
    x = torch.randn(4, 3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert torch.equal(plain(x), fused(x))
    y = fused(x)
    first = torch.autograd.grad(y.square().sum(), [x, *fused.parameters()], create_graph=True)
    torch.autograd.grad(first[0].sum() + first[1].sum(), [x, *fused.parameters()])
    assert {g.dtype for g in first} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_regions_use_torchs_own_layers():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    expected = copy.deepcopy(network)
    fuse(network)
    x = torch.randn(4, 3, 2, 2)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, expected(x))
    y.sum().backward()
    assert isinstance(network[0], FusedBatchNorm2d)
    assert torch.equal(network[0].running_mean, expected[0].running_mean)


@pytest.mark.parametrize("make", [nn.SiLU, nn.Softplus, lambda: nn.LayerNorm(3)])
def test_layers_on_the_meta_device(make: Any) -> None:
    layer = make().to("meta")
    fuse(layer)
    x = torch.empty(2, 3, device="meta", requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert (second.shape, second.device.type) == (x.shape, "meta")


def test_unfuse_reaches_a_parametrized_layer() -> None:
    layer = nn.LayerNorm(3)
    fuse(layer)
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    x = torch.randn(2, 3)
    with torch.no_grad():
        expected = functional.layer_norm(x, (3,), layer.weight, layer.bias)
    unfuse(layer)
    assert not isinstance(layer, FusedLayerNorm)
    assert parametrize.is_parametrized(layer, "weight")
    torch.testing.assert_close(layer(x).detach(), expected)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.LayerNorm


SMOOTH = {
    "layer-norm": lambda: nn.LayerNorm(4),
    "batch-norm": lambda: nn.BatchNorm1d(4),
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}


@pytest.mark.parametrize("kind", SMOOTH)
def test_vectorized_hessians(kind: str) -> None:
    """Products with a batch of vectors, which autograd makes under `vmap`."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), SMOOTH[kind](), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(5, 3, dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (network(x) ** 2).sum()

    expected = torch.autograd.functional.hessian(loss, x)
    fuse(network)
    for vectorize in (False, True):
        hessian = torch.autograd.functional.hessian(loss, x, vectorize=vectorize)
        torch.testing.assert_close(hessian, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["layer-norm", "silu", "softplus"])
def test_symbolic_traces_record_torchs_own_layers(kind: str) -> None:
    network = fused_copy(nn.Sequential(nn.Linear(3, 4), SMOOTH[kind](), nn.Linear(4, 1)))
    x = torch.randn(5, 3)
    torch.testing.assert_close(torch.fx.symbolic_trace(network)(x), network(x))


def fused_copy(network: nn.Module) -> nn.Module:
    copied = copy.deepcopy(network)
    fuse(copied)
    return copied
