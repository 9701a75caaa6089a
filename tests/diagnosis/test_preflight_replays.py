"""What a loss uses besides parameters is the same at each evaluation, and as before at the end."""

import itertools
import random

import pytest
import torch
from games import NetworkGame
from penalty_registry import GanBatch, each_setting, player_of
from preflight_games import WIDTH, Layer, healthy, play
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from wrong_derivatives import FUNCTIONS

from compopt import CGD, Game
from compopt.diagnosis import PreflightError, double_backward_safe, preflight


class Counts(nn.Module):
    """A module whose function depends on how often it has run, kept outside of buffers."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.latest = None

    def forward(self, x):
        self.calls += 1
        self.latest = x
        self.extra = x
        return x * (1 + self.calls)


class Momentum(nn.Module):
    """A module whose function depends on a buffer that each pass moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))

    def forward(self, x):
        self.mean.lerp_(x.detach().mean(0), 0.5)
        return x + self.mean.clone() * x.tanh()


class Alternates(nn.Module):
    def forward(self, x):
        self.train(not self.training)
        return x * 2 if self.training else x.tanh()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, 2)

    def forward(self, x):
        with double_backward_safe():
            return self.inner(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.LSTM(WIDTH, WIDTH)

    def forward(self, x):
        return self.network(x[None])[0][0]


def spectral(kind) -> nn.Module:
    return nn.Sequential(kind(nn.Linear(WIDTH, WIDTH)), nn.Tanh())


KEPT = {
    "dropout": lambda: nn.Dropout(0.3),
    "random numbers": lambda: Layer(lambda x: x * torch.randn_like(x) + torch.rand(WIDTH)),
    "attributes": Counts,
    "modes": Alternates,
    "batch statistics": lambda: nn.BatchNorm1d(WIDTH),
    "running statistics": lambda: nn.BatchNorm1d(WIDTH).eval(),
    "spectral norm": lambda: spectral(nn.utils.parametrizations.spectral_norm),
    "older spectral norm": lambda: spectral(nn.utils.spectral_norm),
    "weight norm": lambda: spectral(nn.utils.parametrizations.weight_norm),
    "recurrent": Recurrent,
    "in place": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ELU(inplace=True)),
    "cast to float32": lambda: Layer(lambda x: x.float().to(torch.float32).half().exp().type_as(x)),
    "new tensors": lambda: Layer(lambda x: torch.cat([x, torch.ones(len(x), 1)], 1)[:, :WIDTH]),
    "checkpoint": lambda: Layer(lambda x: checkpoint(torch.sin, x, use_reentrant=False)),
    "embedding": lambda: Layer(lambda x: x * nn.Embedding(3, WIDTH)(torch.ones(1, dtype=int))),
    "attention": Attention,
    "pooling": lambda: Layer(lambda x: functional.max_pool1d(x[None], 2)[0].repeat(1, 2)),
    "complex": lambda: Layer(lambda x: torch.fft.fft(x).abs().square()),
    "detached number": lambda: Layer(lambda x: x * x.square().mean().detach()),
    "detached by function": lambda: Layer(lambda x: x * torch.detach(x.square().mean())),
    "float": lambda: Layer(
        lambda x: x * float(x.square().mean().detach()) + x.square().mean().item()
    ),
    "default dtype": lambda: Layer(lambda x: x * torch.tensor([0.1] * WIDTH).to(x.dtype)),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_moves_is_no_error(name):
    module = KEPT[name]()
    report = healthy(module)
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-5


@pytest.mark.parametrize("name", ["dropout", "detached number", "spectral norm", "modes"])
def test_what_moves_is_not_blamed(name):
    """The fault lies behind it."""
    layers = nn.Sequential(KEPT[name](), Layer(FUNCTIONS["factor"]))
    with pytest.raises(PreflightError, match=r"of max_player\.encoder\.1\.1 \(Layer\) itself"):
        healthy(layers)


def test_attributes_are_put_back():
    module = Counts()
    healthy(module)
    assert module.calls == 0
    assert module.latest is None
    assert not hasattr(module, "extra")
    module = Alternates()
    healthy(module)
    assert module.training


def test_a_buffer_that_follows_parameters_is_part_of_the_loss():
    """Its mean takes part in the loss and not in the gradient."""
    with pytest.raises(PreflightError, match=r"The first derivative of .+ \(Momentum\)"):
        healthy(Momentum())


@pytest.mark.parametrize("raises", [False, True])
def test_parameters_and_buffers_are_themselves_again(raises):
    loss_fn, *players = play(Layer(FUNCTIONS["sign"]) if raises else nn.BatchNorm1d(WIDTH))
    tensors = [t for p in players for t in [*p.parameters(), *p.buffers()]]
    places = [(id(t), t.dtype, t.data_ptr(), t._version) for t in tensors]
    values = [t.detach().clone() for t in tensors]
    try:
        preflight(loss_fn, *players, measure=False)
        rehearsed = [t._version for t in tensors]
        preflight(loss_fn, *players)
    except PreflightError:
        assert raises
    else:
        assert not raises
    after = [t for p in players for t in [*p.parameters(), *p.buffers()]]
    found = [(id(t), t.dtype, t.data_ptr(), t._version) for t in after]
    assert [f[:3] for f in found] == [p[:3] for p in places]
    params = [i for i, t in enumerate(tensors) if isinstance(t, nn.Parameter)]
    assert all(found[i] == places[i] for i in params)
    assert len(rehearsed) == len(tensors)
    assert all(map(torch.equal, values, after))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_under_way_is_not_disturbed(dtype):
    moves = []
    for rehearses in (False, True):
        game = NetworkGame(dtype)
        optimizer = CGD(game.min_params, game.max_params, lr=0.1)
        optimizer.backward(game.loss())
        if rehearses:
            report = preflight(lambda: game.loss(1), game.generator, game.critic)  # noqa: B023
            assert report.unmeasured is None
        optimizer.step()
        moves.append(torch.cat([p.detach().flatten() for p in game.min_params]))
        assert optimizer.last_step.num_hvp > 0
    assert torch.equal(*moves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_dtype_is_measured_in_float64(dtype):
    game = NetworkGame(dtype)
    report = preflight(game.loss, game.generator, game.critic)
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-6


def test_autocast_is_measured_in_float64():
    game = NetworkGame()

    def loss():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return game.loss()

    report = preflight(loss, game.generator, game.critic)
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-6


def test_samples_that_require_gradients_are_found_again():
    loss_fn, min_player, max_player = play(nn.Tanh())
    points = torch.randn(6, WIDTH)

    def loss():
        points.requires_grad_()
        (slope,) = torch.autograd.grad(max_player(points).sum(), points, create_graph=True)
        return loss_fn() + slope.square().sum()

    report = preflight(loss, min_player, max_player)
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-5


def test_tied_parameters_stay_tied():
    tied = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
    tied[2].weight = tied[0].weight
    assert healthy(tied).unmeasured is None
    assert tied[2].weight is tied[0].weight


@pytest.mark.parametrize("source", ["batches", "python", "exhausted"])
def test_a_loss_that_changes_is_not_measured(source):
    game = NetworkGame()
    batches = iter([0]) if source == "exhausted" else itertools.count()

    def loss():
        if source == "python":
            return random.random() * game.loss()
        return game.loss(next(batches))

    report = preflight(loss, game.generator, game.critic)
    assert report.errors == {}
    expected = "StopIteration" if source == "exhausted" else "and then"
    assert expected in report.unmeasured
    assert report.unmeasured in str(report)


def test_kinks_are_no_error():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, WIDTH), nn.LeakyReLU(0.2))
    critic = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 1))
    z = torch.randn(256, 2)
    report = preflight(lambda: critic(network(z)).square().mean(), network, critic)
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kink_at_the_parameters_is_avoided(dtype):
    x = torch.zeros(2, dtype=dtype, requires_grad=True)
    y = torch.ones(2, dtype=dtype, requires_grad=True)
    report = preflight(lambda: (x.relu() * y).sum() + x.sum(), [x], [y])
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-6
    assert not x.any()
    assert bool((y == 1).all())


@each_setting
def test_every_penalty_is_right(setting):
    batch, penalty = GanBatch(torch.float32), setting.build()

    def loss():
        term = batch.term(penalty)
        if setting.couples:
            return batch.loss() - term
        return Game(batch.loss(), **{f"{player_of(penalty)}_penalty": term})

    report = preflight(loss, batch.network, batch.critic)
    assert report.unmeasured is None
    assert max(report.errors.values()) < 1e-5


class Rough(torch.autograd.Function):
    """The identity as a coarse computation gives it."""

    @staticmethod
    def forward(ctx, x):
        return x + 1e-6 * (1e11 * x).sin()

    @staticmethod
    def backward(ctx, grad):
        return grad.clone()


def test_rounding_leaves_derivatives_undecided():
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    report = preflight(lambda: (Rough.apply(1 * x) * y).sum(), [x], [y])
    assert "The gradient of `loss` for min_player" in report.unmeasured
    assert report.unmeasured.endswith("differences disagree among themselves")
    assert report.errors["order"] < 1e-12


def test_hooks_on_parameters_are_refused_as_by_a_step():
    loss_fn, min_player, max_player = play(nn.Tanh())
    max_player.entry.weight.register_hook(lambda grad: grad)
    with pytest.raises(ValueError, match="must have no hooks"):
        preflight(loss_fn, min_player, max_player)


def test_terms_without_products_do_not_need_them():
    x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    report = preflight(
        lambda: Game(functional.softplus(x).sum() - y.square().sum(), min_penalty=x.exp().sum()),
        [x],
        [y],
    )
    assert report.unmeasured is None
    assert report.errors["product"] == report.errors["order"] == 0
