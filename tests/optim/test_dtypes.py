"""Parameters of any dtype, also mixed."""

from functools import partial

import pytest
import torch
from dense_steps import DenseReference, assert_close
from games import NetworkGame, QuadraticGame
from optimizer_registry import (
    COMPETITIVE,
    KINDS,
    OptimizerInfo,
    each_kind,
)
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor, nn

from compopt import ConjugateGradient

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


@pytest.mark.parametrize(
    ("info", "dtypes", "warm_start"),
    [
        pytest.param(
            info, dtypes, info.is_competitive and number % 2 == 1, id=f"{info.name}-{name}"
        )
        for info in KINDS
        for number, (name, dtypes) in enumerate(DTYPES.items())
        if info.name == "ACGD" or name in ("bfloat16", "players-differ", "all-differ")
    ],
)
def test_every_mixture_of_dtypes(
    info: OptimizerInfo, dtypes: tuple[torch.dtype, ...], warm_start: bool
) -> None:
    # The default would leave little but the rounding of the product.
    own = {"coefficient": 0.1} if "coefficient" in info.own[0] else {}
    game = recast(QuadraticGame(), dtypes)
    solver = ConjugateGradient(rtol=1e-5, max_iter=60)
    optimizer = info.exact(
        game,
        lr=0.05,
        solver=solver,
        warm_start=warm_start,
        solve_for="min",
        weight_decay=0.1,
        **own,
    )
    for _ in range(3):
        # Anew each time: rounding of the parameters is not the reference's to follow.
        reference = DenseReference(info, game)
        reference.resume(optimizer)
        expected = reference.next_params(optimizer)
        optimizer.step(game.loss)
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
            has_delta = info.is_competitive and warm_start and player == "min"
            assert len(vectors) == len(info.state_keys) + has_delta


@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_two_phases_keep_the_dtype_of_grad(dtypes: tuple[torch.dtype, ...]) -> None:
    info = next(info for info in KINDS if info.name == "ACGD")
    game = recast(QuadraticGame(), dtypes)
    optimizer = info.exact(game, lr=0.05)
    expected = DenseReference(info, game).next_params(optimizer)
    optimizer.backward(game.loss())
    assert [param.grad.dtype for param in all_params(optimizer)] == list(dtypes)
    optimizer.step()
    for index, (param, value) in enumerate(expected):
        assert_close(param.detach().to(coarsest(dtypes)), value, f"parameter {index}")


@pytest.mark.parametrize(
    "info", [info for info in COMPETITIVE if info.state_keys], ids=lambda info: info.name
)
def test_half_parameters_accumulate_small_squares(info: OptimizerInfo) -> None:
    """Moments of bfloat16 parameters kept in bfloat16 would stop growing at 1/256 of a change."""
    game = recast(QuadraticGame(), (torch.bfloat16,) * 4)
    optimizer = info.exact(game, lr=0.0, beta=0.999)
    for _ in range(20):
        optimizer.step(game.loss)
    grads = game.own_grads()["min"][:2].bfloat16().double()
    average = optimizer.state[game.min_params[0]]["exp_avg_sq"]
    torch.testing.assert_close(
        average.double(), (1 - 0.999**20) * grads**2, rtol=1e-2, atol=0, msg=str
    )


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
@each_kind
def test_default_dtype_does_not_matter(info: OptimizerInfo, default: torch.dtype) -> None:
    snapshots = []
    for dtype in (torch.float32, default):
        game = NetworkGame()
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            optimizer = info.build(game, lr=0.05, warm_start=True)
            for step in range(3):
                optimizer.step(partial(game.loss, step))
        finally:
            torch.set_default_dtype(before)
        snapshots.append(snapshot(optimizer))
    assert_same_bits(*snapshots)


def lower_precision(game: NetworkGame, batch: int) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return game.loss(batch)


@each_kind
def test_autocast(info: OptimizerInfo) -> None:
    game, twin_game = NetworkGame(), NetworkGame()
    optimizer, twin = (info.build(g, lr=0.05) for g in (game, twin_game))
    start = [param.detach().clone() for param in all_params(optimizer)]
    for step in range(3):
        optimizer.step(partial(lower_precision, game, step))
        twin.step(partial(twin_game.loss, step))
    assert not info.is_competitive or optimizer.last_step.taken
    moves = [
        torch.cat([(p.detach() - old).reshape(-1) for p, old in zip(params, start, strict=True)])
        for params in (all_params(optimizer), all_params(twin))
    ]
    cosine = nn.functional.cosine_similarity(*moves, dim=0).item()
    assert cosine > 0.99, f"autocast points elsewhere: cosine {cosine:.4f}"
    assert not torch.equal(*moves)
