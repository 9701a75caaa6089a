"""Parameters of any dtype, shape and memory layout."""

from collections.abc import Callable

import pytest
import torch
from dense_steps import DenseReference, assert_close, assert_dense_step
from games import NetworkGame, QuadraticGame
from optimizer_registry import OptimizerInfo, each_optimizer
from snapshots import all_params, assert_same_bits, bits, snapshot
from torch import Tensor, nn

from compopt import ConjugateGradient, DirectSolver

DTYPES = {
    "float32": (torch.float32,) * 4,
    "float64": (torch.float64,) * 4,
    "bfloat16": (torch.bfloat16,) * 4,
    "float16": (torch.float16,) * 4,
    "mixed-min": (torch.float32, torch.bfloat16, torch.float32, torch.float32),
    "mixed-max": (torch.float32, torch.float32, torch.float64, torch.float32),
    "halves": (torch.bfloat16, torch.float16, torch.float16, torch.bfloat16),
    "players-differ": (torch.float64, torch.float64, torch.bfloat16, torch.bfloat16),
    "all-differ": (torch.bfloat16, torch.float64, torch.float32, torch.float16),
}


def recast(game: QuadraticGame, dtypes: tuple[torch.dtype, ...]) -> QuadraticGame:
    """Give the parameters of ``game`` other dtypes; the loss is computed in float64."""
    params = [*game.min_params, *game.max_params]
    cast = [
        param.detach().to(dtype).requires_grad_()
        for param, dtype in zip(params, dtypes, strict=True)
    ]
    game.min_params, game.max_params = cast[:2], cast[2:]
    return game


def coarsest(dtypes: tuple[torch.dtype, ...]) -> torch.dtype:
    """Return the dtype whose rounding a step has, float32 (the solver's residual) or coarser.

    Autograd rounds gradients and products to the dtype of each parameter on their way through, and
    a product mixes all parameters.
    """
    return max((torch.float32, *dtypes), key=lambda dtype: torch.finfo(dtype).eps)


@pytest.mark.parametrize("warm_start", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
@each_optimizer
def test_every_mixture_of_dtypes(
    info: OptimizerInfo, dtypes: tuple[torch.dtype, ...], warm_start: bool
) -> None:
    game = recast(QuadraticGame(), dtypes)
    solver = ConjugateGradient(rtol=1e-5, max_iter=60)
    optimizer = info.exact(
        game, lr=0.05, solver=solver, warm_start=warm_start, solve_for="min", weight_decay=0.1
    )
    for _ in range(3):
        # Anew each time: rounding of the parameters is not the reference's to follow.
        reference = DenseReference(info, game)
        for param in all_params(optimizer):
            if param in optimizer.state and "exp_avg_sq" in optimizer.state[param]:
                memory = reference.memory.setdefault(param, {})
                memory["num_steps"] = int(optimizer.state[param]["step"])
                memory["average"] = optimizer.state[param]["exp_avg_sq"].double().reshape(-1)
        expected = reference.next_params(optimizer)
        optimizer.step(game.loss())
        for index, (param, value) in enumerate(expected):
            assert_close(param.detach().to(coarsest(dtypes)), value, f"parameter {index}")
    assert [param.dtype for param in all_params(optimizer)] == list(dtypes)
    for player in ("min", "max"):
        widest = torch.float32
        for param in game.params(player):
            widest = torch.promote_types(widest, param.dtype)
        for param in game.params(player):
            vectors = [v for key, v in optimizer.state[param].items() if key != "step"]
            assert all(vector.dtype == widest for vector in vectors)
            assert len(vectors) == len(info.state_keys) + (warm_start and player == "min")


@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
@each_optimizer
def test_two_phases_keep_the_dtype_of_grad(
    info: OptimizerInfo, dtypes: tuple[torch.dtype, ...]
) -> None:
    game = recast(QuadraticGame(), dtypes)
    optimizer = info.exact(game, lr=0.05)
    expected = DenseReference(info, game).next_params(optimizer)
    optimizer.backward(game.loss())
    assert [param.grad.dtype for param in all_params(optimizer)] == list(dtypes)
    optimizer.step()
    for index, (param, value) in enumerate(expected):
        assert_close(param.detach().to(coarsest(dtypes)), value, f"parameter {index}")


@each_optimizer
def test_half_parameters_accumulate_small_squares(info: OptimizerInfo) -> None:
    """Moments of bfloat16 parameters kept in bfloat16 would stop growing at 1/256 of a change."""
    if not info.state_keys:
        return
    game = recast(QuadraticGame(), (torch.bfloat16,) * 4)
    optimizer = info.exact(game, lr=0.0, beta=0.999)
    for _ in range(20):
        optimizer.step(game.loss())
    grads = game.own_grads()["min"][:2].bfloat16().double()
    average = optimizer.state[game.min_params[0]]["exp_avg_sq"]
    torch.testing.assert_close(
        average.double(), (1 - 0.999**20) * grads**2, rtol=1e-2, atol=0, msg=str
    )


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
@each_optimizer
def test_default_dtype_does_not_matter(info: OptimizerInfo, default: torch.dtype) -> None:
    snapshots = []
    for dtype in (torch.float32, default):
        game = NetworkGame()
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            optimizer = info.cls(game.min_params, game.max_params, lr=0.05, warm_start=True)
            for step in range(3):
                optimizer.step(game.loss(step))
        finally:
            torch.set_default_dtype(before)
        snapshots.append(snapshot(optimizer))
    assert_same_bits(*snapshots)


@each_optimizer
def test_autocast(info: OptimizerInfo) -> None:
    game, twin_game = NetworkGame(), NetworkGame()
    optimizer, twin = (info.cls(g.min_params, g.max_params, lr=0.05) for g in (game, twin_game))
    start = [param.detach().clone() for param in all_params(optimizer)]
    for step in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = game.loss(step)
        optimizer.step(loss)
        twin.step(twin_game.loss(step))
    assert optimizer.last_step.taken
    moves = [
        torch.cat([(p.detach() - old).reshape(-1) for p, old in zip(params, start, strict=True)])
        for params in (all_params(optimizer), all_params(twin))
    ]
    cosine = nn.functional.cosine_similarity(*moves, dim=0).item()
    assert cosine > 0.99, f"autocast points elsewhere: cosine {cosine:.4f}"
    assert not torch.equal(*moves)


# Each gives a tensor of the same values in another memory layout.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda tensor: tensor.clone(),
    "transposed": lambda tensor: tensor.transpose(0, 1).clone().transpose(0, 1),
    "channels-last": lambda tensor: tensor.clone(memory_format=torch.channels_last),
    "strided": lambda tensor: tensor.repeat_interleave(2, dim=3)[..., ::2],
    "offset": lambda tensor: torch.cat([tensor, tensor])[tensor.shape[0] :],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@each_optimizer
def test_memory_layouts(info: OptimizerInfo, layout: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    values = [torch.randn(2, 3, 2, 2), torch.randn(3, 2, 2, 2)]
    coupling = torch.randn(24, 24, dtype=torch.float64)
    runs = []
    for make in (layout, torch.clone):
        x, y = (make(value).requires_grad_() for value in values)
        strides = x.stride(), y.stride()
        optimizer = info.cls([x], [y], lr=0.05, warm_start=True, weight_decay=0.1)
        for step in range(3):
            loss = (x.reshape(-1).sin().double() @ coupling @ y.reshape(-1).sin().double()).mean()
            if step == 1:
                optimizer.backward(loss)
                optimizer.step()
            else:
                optimizer.step(loss)
        assert (x.stride(), y.stride()) == strides
        runs.append(snapshot(optimizer))
    assert_same_bits(*runs)


@each_optimizer
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
        optimizer = info.cls(generator.parameters(), critic.parameters(), lr=0.01, solver=solver)
        optimizer.step(critic(real).sin().mean() - critic(generator(noise)).sin().mean())
        assert critic[0].weight.is_contiguous(memory_format=memory_format)
        runs.append([param.detach() for param in all_params(optimizer)])
    for param, other in zip(*runs, strict=True):
        assert_close(param, other, f"{info.name}, shape {tuple(param.shape)}")


@pytest.mark.parametrize("player", ["min", "max"])
@each_optimizer
def test_empty_parameters_among_others(info: OptimizerInfo, player: str) -> None:
    game = QuadraticGame()
    params = game.params(player)
    used, unused = (torch.empty(0, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    params.insert(1, used)
    params.append(torch.empty(0, dtype=torch.float32, requires_grad=True))
    sides = {"min": list(game.min_params), "max": list(game.max_params)}
    sides[player].insert(0, unused)
    optimizer = info.cls(sides["min"], sides["max"], lr=0.1, solver=DirectSolver(), warm_start=True)
    plain = QuadraticGame()
    reference = DenseReference(info, plain)
    twin = info.exact(plain)
    for _ in range(3):
        optimizer.step(game.loss())
        optimizer.zero_grad()
        assert_dense_step(info, twin, reference)
    optimizer.backward(game.loss())
    optimizer.step()
    assert_dense_step(info, twin, reference)
    full = [param for param in all_params(optimizer) if param.numel()]
    for param, other in zip(full, all_params(twin), strict=True):
        assert_close(param.detach(), other.detach(), info.name)
    assert all(optimizer.state[param]["step"].item() == 4 for param in all_params(optimizer))


@each_optimizer
def test_players_of_one_number_each(info: OptimizerInfo) -> None:
    x, y = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.5, -0.3))
    optimizer = info.cls([x], [y], lr=0.1, solver=DirectSolver())
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


@each_optimizer
def test_parameter_that_takes_no_part_stays(info: OptimizerInfo) -> None:
    """It has a zero gradient, not none: it counts its steps with its player."""
    game = QuadraticGame()
    idle = torch.ones(2, dtype=torch.float64, requires_grad=True)
    before = bits(idle)
    optimizer = info.cls([idle, *game.min_params], game.max_params, lr=0.1, solver=DirectSolver())
    reference = DenseReference(info, game)
    for _ in range(3):
        twin_groups = [{**group} for group in optimizer.param_groups]
        twin_groups[0]["params"] = game.min_params
        expected = reference.next_params(_Groups(twin_groups))
        optimizer.step(game.loss())
        for param, value in expected:
            assert_close(param.detach(), value, info.name)
    assert torch.equal(bits(idle), before)
    assert optimizer.state[idle]["step"].item() == 3


class _Groups:
    """What the reference reads of an optimizer."""

    def __init__(self, param_groups: list[dict[str, object]]) -> None:
        self.param_groups = param_groups


@each_optimizer
def test_tied_weights(info: OptimizerInfo) -> None:
    """A weight used twice in its network and given once moves as the sum of its uses says."""
    game, twin_game = QuadraticGame(), QuadraticGame()
    shared = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)

    def build(game: QuadraticGame) -> tuple[torch.optim.Optimizer, Tensor]:
        weight = shared.clone().requires_grad_()
        return info.cls([weight], game.max_params, lr=0.1, solver=DirectSolver()), weight

    optimizer, weight = build(game)
    twin, twin_weight = build(twin_game)
    for _ in range(3):
        game.min_params = [weight[:2], weight]
        optimizer.step(game.loss())
        # The same by an explicit linear map of one use.
        expand = torch.eye(3, dtype=torch.float64)[[0, 1, 0, 1, 2]]
        twin_game.min_params = [expand @ twin_weight]
        twin.step(twin_game.loss())
        assert_close(weight.detach(), twin_weight.detach(), "tied weight")
        assert_close(game.vector("max").detach(), twin_game.vector("max").detach(), "opponent")


@each_optimizer
def test_tied_modules_give_their_parameters_once(info: OptimizerInfo) -> None:
    layer = nn.Linear(2, 2)
    generator = nn.Sequential(layer, nn.Tanh(), layer)
    critic = nn.Linear(2, 1)
    optimizer = info.cls(generator.parameters(), critic.parameters(), lr=0.05)
    before = layer.weight.detach().clone()
    optimizer.step(critic(generator(torch.ones(4, 2))).sin().mean())
    assert len(optimizer.param_groups[0]["params"]) == 2
    assert not torch.equal(layer.weight, before)
