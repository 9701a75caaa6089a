"""Parameters of any shape and memory layout."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from dense_steps import DenseReference, assert_close, assert_dense_step
from games import QuadraticGame
from optimizer_registry import KINDS, OptimizerInfo, each_competitive, each_kind
from snapshots import all_params, assert_same_bits, bits, snapshot
from torch import Tensor, nn

from compopt import ConjugateGradient, DirectSolver

# Each gives a tensor of the same values in another memory layout.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda tensor: tensor.clone(),
    "transposed": lambda tensor: tensor.transpose(0, 1).clone().transpose(0, 1),
    "channels-last": lambda tensor: tensor.clone(memory_format=torch.channels_last),
    "strided": lambda tensor: tensor.repeat_interleave(2, dim=3)[..., ::2],
    "offset": lambda tensor: torch.cat([tensor, tensor])[tensor.shape[0] :],
}


@pytest.mark.parametrize(
    ("info", "layout"),
    [
        pytest.param(info, layout, id=f"{info.name}-{name}")
        for info in KINDS
        for name, layout in LAYOUTS.items()
        if info.name == "ACGD" or name == "transposed"
    ],
)
def test_memory_layouts(info: OptimizerInfo, layout: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    values = [torch.randn(2, 3, 2, 2), torch.randn(3, 2, 2, 2)]
    coupling = torch.randn(24, 24, dtype=torch.float64)
    runs = []
    for make in (layout, torch.clone):
        x, y = (make(value).requires_grad_() for value in values)
        strides = x.stride(), y.stride()
        kwargs = info.arguments(lr=0.05, warm_start=True, weight_decay=0.1)
        optimizer = info.cls([x], [y], **kwargs)

        def loss(x: Tensor = x, y: Tensor = y) -> Tensor:
            return (x.reshape(-1).sin().double() @ coupling @ y.reshape(-1).sin().double()).mean()

        for step in range(3):
            if step == 1 and info.is_competitive:
                optimizer.backward(loss)
                optimizer.step()
            else:
                optimizer.step(loss)
        assert (x.stride(), y.stride()) == strides
        runs.append(snapshot(optimizer))
    assert_same_bits(*runs)


def sine_game(generator: nn.Module, critic: nn.Module, noise: Tensor, real: Tensor) -> Tensor:
    return critic(real).sin().mean() - critic(generator(noise)).sin().mean()


@each_kind
def test_channels_last_network(info: OptimizerInfo) -> None:
    runs = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        generator = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1))
        critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1))
        noise, real = torch.randn(2, 4, 3, 6, 6)
        for network in (generator, critic):
            network.to(dtype=torch.float64, memory_format=memory_format)
        noise, real = (
            t.to(dtype=torch.float64, memory_format=memory_format) for t in (noise, real)
        )
        solver = ConjugateGradient(rtol=1e-13, max_iter=100)
        kwargs = info.arguments(lr=0.01, solver=solver)
        optimizer = info.cls(generator.parameters(), critic.parameters(), **kwargs)
        networks = generator, critic, noise, real
        optimizer.step(partial(sine_game, *networks))
        assert critic[0].weight.is_contiguous(memory_format=memory_format)
        runs.append([param.detach() for param in all_params(optimizer)])
    for param, other in zip(*runs, strict=True):
        assert_close(param, other, f"{info.name}, shape {tuple(param.shape)}")


@pytest.mark.parametrize("player", ["min", "max"])
@each_kind
def test_empty_parameters_among_others(info: OptimizerInfo, player: str) -> None:
    game = QuadraticGame()
    params = game.params(player)
    used, unused = (torch.empty(0, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    params.insert(1, used)
    params.append(torch.empty(0, dtype=torch.float32, requires_grad=True))
    sides = {"min": list(game.min_params), "max": list(game.max_params)}
    sides[player].insert(0, unused)
    optimizer = info.cls(
        sides["min"], sides["max"], lr=0.1, **info.arguments(solver=DirectSolver(), warm_start=True)
    )
    plain = QuadraticGame()
    reference = DenseReference(info, plain)
    twin = info.exact(plain)
    for _ in range(3):
        optimizer.step(game.loss)
        optimizer.zero_grad()
        assert_dense_step(info, twin, reference)
    if info.is_competitive:
        optimizer.backward(game.loss())
        optimizer.step()
    else:
        optimizer.step(game.loss)
    assert_dense_step(info, twin, reference)
    full = [param for param in all_params(optimizer) if param.numel()]
    for param, other in zip(full, all_params(twin), strict=True):
        assert_close(param.detach(), other.detach(), info.name)
    assert all(optimizer.state[param]["step"].item() == 4 for param in all_params(optimizer))


@each_competitive
def test_players_of_one_number_each(info: OptimizerInfo) -> None:
    x, y = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.5, -0.3))
    optimizer = info.cls([x], [y], lr=0.1, **info.arguments(solver=DirectSolver()))
    optimizer.step(3 * x * y)
    # g_x = 3 y and the max player's own gradient is -3 x; D = 3.
    rates = [
        info.rates(optimizer.param_groups[0], torch.tensor(g, dtype=torch.float64), {})
        for g in (-0.9, -1.5)
    ]
    matrix = torch.tensor([[1.0, 3 * rates[0]], [-3 * rates[1], 1.0]], dtype=torch.float64)
    rhs = torch.tensor([0.9 * rates[0], 1.5 * rates[1]], dtype=torch.float64)
    move = torch.linalg.solve(matrix, rhs)
    assert_close(x.detach(), 0.5 + move[0], "min player")
    assert_close(y.detach(), -0.3 + move[1], "max player")
    assert x.shape == y.shape == ()


@pytest.mark.filterwarnings("ignore:1 of 3 parameters of the min player have no gradient")
@each_kind
def test_parameter_that_takes_no_part_stays(info: OptimizerInfo) -> None:
    """It has a zero gradient, not none: it counts its steps with its player."""
    game = QuadraticGame()
    idle = torch.ones(2, dtype=torch.float64, requires_grad=True)
    before = bits(idle)
    optimizer = info.cls(
        [idle, *game.min_params], game.max_params, lr=0.1, **info.arguments(solver=DirectSolver())
    )
    reference = DenseReference(info, game)
    for _ in range(3):
        twin_groups = [{**group} for group in optimizer.param_groups]
        twin_groups[0]["params"] = game.min_params
        expected = reference.next_params(_Groups(optimizer, twin_groups))
        optimizer.step(game.loss)
        for param, value in expected:
            assert_close(param.detach(), value, info.name)
    assert torch.equal(bits(idle), before)
    assert optimizer.state[idle]["step"].item() == 3


class _Groups:
    """What the reference reads of an optimizer."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, param_groups: list[dict[str, object]]
    ) -> None:
        self.optimizer = optimizer
        self.param_groups = param_groups

    def __getattr__(self, name: str) -> object:
        return getattr(self.optimizer, name)


def loss_of_uses(game: QuadraticGame, weight: Tensor) -> Tensor:
    game.min_params = [weight[:2], weight]
    return game.loss()


def loss_of_map(game: QuadraticGame, weight: Tensor) -> Tensor:
    expand = torch.eye(3, dtype=torch.float64)[[0, 1, 0, 1, 2]]
    game.min_params = [expand @ weight]
    return game.loss()


@each_kind
def test_tied_weights(info: OptimizerInfo) -> None:
    """A weight used twice in its network and given once moves as the sum of its uses says."""
    game, twin_game = QuadraticGame(), QuadraticGame()
    shared = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)

    def build(game: QuadraticGame) -> tuple[torch.optim.Optimizer, Tensor]:
        weight = shared.clone().requires_grad_()
        return info.cls(
            [weight], game.max_params, lr=0.1, **info.arguments(solver=DirectSolver())
        ), weight

    optimizer, weight = build(game)
    twin, twin_weight = build(twin_game)
    for _ in range(3):
        optimizer.step(partial(loss_of_uses, game, weight))
        # The same by an explicit linear map of one use.
        twin.step(partial(loss_of_map, twin_game, twin_weight))
        assert_close(weight.detach(), twin_weight.detach(), "tied weight")
        assert_close(game.vector("max").detach(), twin_game.vector("max").detach(), "opponent")


@each_kind
def test_tied_modules_give_their_parameters_once(info: OptimizerInfo) -> None:
    layer = nn.Linear(2, 2)
    generator = nn.Sequential(layer, nn.Tanh(), layer)
    critic = nn.Linear(2, 1)
    optimizer = info.cls(generator.parameters(), critic.parameters(), lr=0.05)
    before = layer.weight.detach().clone()
    optimizer.step(lambda: critic(generator(torch.ones(4, 2))).sin().mean())
    assert len(optimizer.param_groups[0]["params"]) == 2
    assert not torch.equal(layer.weight, before)
