"""Over quadratic games of known spectrum: convergence and divergence exactly where theory has it.

In a game whose Jacobian has the eigenvalues ``p ± i m`` with common eigenvectors (curvature p and
interaction m of each pair of directions), every method acts on each pair alone. The radius by which
it contracts is derived here from (p, m, eta); the methods must have it to rounding.
"""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compopt import CGD, DirectSolver, games
from compopt.optim import rivals

# The factor of one step on the coordinate x + i y, whose field is xi = (p - i m) z, and H_o = -i m.
LINEAR: dict[str, tuple[Callable, Callable[[float, float, float], complex]]] = {
    "GDA": (rivals.SimultaneousDescentAscent, lambda p, m, eta: 1 - eta * (p - 1j * m)),
    "LCGD": (
        rivals.LCGD,
        lambda p, m, eta: 1 - eta * (1 + 1j * eta * m) * (p - 1j * m),
    ),
    "LOLA": (
        rivals.LOLA,
        lambda p, m, eta: 1 - eta * (p - 1j * m) - eta**2 * 1j * m * (p - 1j * m),
    ),
    "SGA, lambda = eta": (
        lambda x, y, lr: rivals.SGA(x, y, lr=lr, coefficient=lr),
        lambda p, m, eta: 1 - eta * (1 + 1j * eta * m) * (p - 1j * m),
    ),
    "CGD": (
        lambda x, y, lr: CGD(x, y, lr=lr, solver=DirectSolver()),
        lambda p, m, eta: 1 - eta * (p - 1j * m) / (1 - 1j * eta * m),
    ),
    "CGD in a box": (
        lambda x, y, lr: CGD(x, y, lr=lr, solver=DirectSolver()),
        lambda p, m, eta: 1 - eta * (p - 1j * m) / (1 - 1j * eta * m),
    ),
    "ExtraGradient": (
        rivals.ExtraGradient,
        lambda p, m, eta: 1 - eta * (p - 1j * m) * (1 - eta * (p - 1j * m)),
    ),
    "ConOpt": (
        lambda x, y, lr: rivals.ConsensusOptimization(x, y, lr=lr, coefficient=0.5),
        lambda p, m, eta: 1 - eta * ((p - 1j * m) + 0.5 * (p**2 + m**2)),
    ),
}


def ogda_radius(p: float, m: float, eta: float) -> float:
    """Return the larger root of ``z^2 = z - 2 a z + a`` with ``a = eta (p - i m)``."""
    a = eta * (p - 1j * m)
    companion = torch.tensor([[1 - 2 * a, a], [1, 0]], dtype=torch.complex128)
    return float(torch.linalg.eigvals(companion).abs().max())


def growth(make: Callable, game: games.TestGame, lr: float, steps: int) -> float:
    """Return the mean factor of the distance from the solution over the later half of a run."""
    x, y = game.players()
    optimizer = make([x], [y], lr=lr)
    middle = 0.0
    for step in range(steps):
        if step == steps // 2:
            middle = game.distance(x, y)
        optimizer.step(lambda: game.loss(x, y))
    # A run may arrive.
    return (game.distance(x, y) / middle) ** (2 / steps) if middle else 0.0


spectra = {
    "p": st.floats(-1.0, 2.0),
    "m": st.floats(0.1, 4.0),
    "eta": st.floats(0.05, 0.8),
    "seed": st.integers(0, 1000),
}


@pytest.mark.parametrize("name", LINEAR)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(**spectra)
def test_one_step_has_the_factor_of_theory(
    name: str, p: float, m: float, eta: float, seed: int
) -> None:
    make, factor = LINEAR[name]
    # A single pair of directions whose interaction is m, not spread from 0 to m.
    game = games.monotone_quadratic(2, mu=p, smoothness=p, interaction=m, seed=seed)
    x, y = game.players()
    solution = game.solution
    assert solution is not None
    before = [(x - solution[0]).detach(), (y - solution[1]).detach()]
    optimizer = make([x], [y], lr=eta)
    optimizer.step(lambda: game.loss(x, y))
    after = [(x - solution[0]).detach(), (y - solution[1]).detach()]
    # In the eigenvectors of the mixed block, whose values are 0 and m, the directions part.
    mixed = torch.autograd.functional.hessian(
        lambda w: game.loss(w[:2], w[2:]), torch.zeros(4, dtype=torch.float64)
    )[:2, 2:]
    values, vectors = torch.linalg.eigh(mixed)
    assert values.tolist() == pytest.approx([0, m], abs=1e-12)
    for index, value in enumerate(values.tolist()):
        z, w = (
            complex(float(vectors[:, index] @ a), float(vectors[:, index] @ b))
            for a, b in (before, after)
        )
        expected = factor(p, value, eta) * z
        assert abs(w - expected) <= 1e-10 * max(abs(z), abs(w))


@pytest.mark.parametrize("name", [*LINEAR, "OGDA"])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(**spectra)
def test_runs_converge_exactly_where_theory_has_it(
    name: str, p: float, m: float, eta: float, seed: int
) -> None:
    if name == "OGDA":
        make, radii = rivals.OGDA, [ogda_radius(p, value, eta) for value in (0.0, m)]
    else:
        make, factor = LINEAR[name]
        radii = [abs(factor(p, value, eta)) for value in (0.0, m)]
    # Too close to one for the number of steps, and too fast for float64.
    if min(abs(radius - 1) for radius in radii) < 0.02 or max(radii) < 0.3:
        return
    game = games.monotone_quadratic(2, mu=p, smoothness=p, interaction=m, seed=seed)
    measured = growth(make, game, eta, 100 if max(radii) < 3 else 40)
    assert (measured < 1) == (max(radii) < 1), f"{measured} for {max(radii)}"


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    mu=st.floats(0.05, 1.0),
    interaction=st.floats(0.0, 20.0),
    seed=st.integers(0, 1000),
)
def test_cgd_converges_at_any_interaction(mu: float, interaction: float, seed: int) -> None:
    """With curvatures up to 1 / eta, whatever the interaction is."""
    game = games.monotone_quadratic(4, mu=mu, smoothness=1.0, interaction=interaction, seed=seed)
    assert game.spectrum is not None
    eta = 0.9
    radius = max(
        abs(LINEAR["CGD"][1](value.real, value.imag, eta)) for value in map(complex, game.spectrum)
    )
    assert radius < 1
    x, y = game.players()
    start = game.distance(x, y)
    optimizer = CGD([x], [y], lr=eta, solver=DirectSolver())
    for _ in range(60):
        optimizer.step(game.loss(x, y))
    # The operator is normal, so no transient can exceed this.
    assert game.distance(x, y) <= start * radius**60 * (1 + 1e-9) + 1e-12


def test_implicit_regularization_has_its_radius() -> None:
    """``x^2 + 10 x y + y^2`` with rates 0.09 and 0.01: 0.9625, by the plain method itself."""
    game = games.implicit_regularization()
    x, y = game.players()
    optimizer = rivals.SimultaneousDescentAscent([x], [y], lr=(0.09, 0.01))
    radii = []
    for _ in range(2000):
        optimizer.step(game.loss(x, y))
        radii.append(math.hypot(x.item(), y.item()))
    measured = (radii[-1] / radii[999]) ** (1 / 1000)
    assert measured == pytest.approx(math.sqrt(0.9264), rel=1e-3)
    assert round(math.sqrt(0.9264), 4) == 0.9625
