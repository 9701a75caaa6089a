"""The table of costs in the documentation is what the optimizers do, by counting."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from games import NetworkGame

import compopt
from compopt import ACGD, CGD, GMRES, ConjugateGradient, PolymatrixCGD
from compopt.optim import rivals

PAGE = Path(__file__).resolve().parent.parent / "docs" / "which-optimizer.md"
ROW = re.compile(r"^\| `(\w+)`(?:.*?) \| (.*) \|$", re.MULTILINE)
ITERATIONS = 3
# Options by which a row's number in brackets is had, and the products that they add.
DEARER: dict[str, tuple[dict[str, Any], int]] = {
    "SGA": ({"align": True}, 1),
    "LOLA": ({"anticipate": True}, 2),
}


def rows() -> dict[str, list[str]]:
    """Return the cells of each optimizer: evaluations, backward passes, products, calls, ..."""
    table = PAGE.read_text().split("| game |")[0]
    return {name: cells.split(" | ") for name, cells in ROW.findall(table)}


def number(cell: str) -> float:
    """Return the number that a cell begins with."""
    whole, half = re.match(r"(\d+)( 1/2)?", cell).groups()
    return float(whole) + (0.5 if half else 0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counts = {"evaluations": 0, "passes": 0}
    grad = torch.autograd.grad

    def counting(*args: Any, **kwargs: Any) -> Any:
        counts["passes"] += 1
        return grad(*args, **kwargs)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("backward() must not be called")

    monkeypatch.setattr(torch.autograd, "grad", counting)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    return counts


def build(name: str, game: NetworkGame, **options: Any) -> Any:
    cls = getattr(compopt, name, None) or getattr(rivals, name)
    if cls is PolymatrixCGD:
        solver = GMRES(rtol=0.0, max_iter=ITERATIONS, restart=ITERATIONS)
        return cls([game.min_params, game.max_params], lr=0.01, solver=solver, **options)
    if issubclass(cls, CGD | ACGD):
        options["solver"] = ConjugateGradient(rtol=0.0, max_iter=ITERATIONS)
    return cls(game.min_params, game.max_params, lr=0.01, **options)


def second_step(optimizer: Any, game: NetworkGame, counts: dict[str, int]) -> None:
    """Count a step: a later one, as the first may have nothing to remember."""

    def closure() -> Any:
        counts["evaluations"] += 1
        loss = game.loss()
        return [loss, -loss] if isinstance(optimizer, PolymatrixCGD) else loss

    for _ in range(2):
        counts.update(evaluations=0, passes=0)
        optimizer.step(closure)


def test_every_optimizer_has_a_row() -> None:
    public = {
        name
        for module in (compopt, rivals)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
        and issubclass(getattr(module, name), torch.optim.Optimizer)
    }
    assert set(rows()) == public


@pytest.mark.parametrize("name", [name for name in rows() if name != "PolymatrixCGD"])
def test_counts_are_those_of_the_table(name: str, counted: dict[str, int]) -> None:
    evaluations, backward, products, calls = rows()[name][:4]
    game = NetworkGame(torch.float64)
    second_step(build(name, game), game, counted)
    assert counted["evaluations"] == number(evaluations)
    if products.startswith("2k"):
        assert calls == "1 + k"
        made, weight = 2.0 * ITERATIONS, ITERATIONS
    else:
        made = number(products)
        weight = made if "both players" in products and "(" not in products else made / 2
        # An evaluation with half of a backward pass is three quarters of a call.
        call = 0.75 if "one player" in backward else 1.0
        assert number(calls) == call * number(backward) + weight
    assert counted["passes"] == number(backward) + made


@pytest.mark.parametrize("name", DEARER)
def test_dearer_forms_make_the_products_in_brackets(name: str, counted: dict[str, int]) -> None:
    game, plain = NetworkGame(torch.float64), NetworkGame(torch.float64)
    second_step(build(name, plain), plain, counted)
    cheaper = counted["passes"]
    options, more = DEARER[name]
    second_step(build(name, game, **options), game, counted)
    assert counted["passes"] == cheaper + more
    # One product by both players is worth two by one.
    assert rows()[name][3] == "2 (3)"


def test_players_of_polymatrix_steps_each_cost_a_pass(counted: dict[str, int]) -> None:
    game = NetworkGame(torch.float64)
    optimizer = build("PolymatrixCGD", game)
    second_step(optimizer, game, counted)
    cells = rows()["PolymatrixCGD"]
    assert cells[1].startswith("n,")
    assert cells[2].startswith("nk ")
    assert counted["passes"] == 2 + 2 * ITERATIONS
    assert optimizer.last_step.taken


@pytest.mark.parametrize("name", ["CGD", "ACGD"])
def test_a_pair_costs_a_pass_for_each_loss_and_one_more_product(
    name: str, counted: dict[str, int]
) -> None:
    game = NetworkGame(torch.float64)
    solver = GMRES(rtol=0.0, max_iter=ITERATIONS)
    optimizer = getattr(compopt, name)(game.min_params, game.max_params, lr=0.01, solver=solver)
    for _ in range(2):
        counted["passes"] = 0
        loss = game.loss()
        optimizer.step((loss, -2 * loss))
    assert "`CGD` and `ACGD` make 1 + 2k products" in PAGE.read_text()
    assert counted["passes"] == 2 + 1 + 2 * ITERATIONS
    assert optimizer.last_step.num_hvp == 1 + 2 * ITERATIONS


@pytest.mark.parametrize("name", ["CGD", "ACGD", "PolymatrixCGD"])
def test_a_mirror_map_adds_no_product(name: str, counted: dict[str, int]) -> None:
    assert "adds no product" in PAGE.read_text()
    passes = []
    for options in ({}, {"mirror": ("box", -20.0, 20.0)}):
        game = NetworkGame(torch.float64)
        second_step(build(name, game, **options), game, counted)
        passes.append(counted["passes"])
    assert passes[0] == passes[1] > 0
