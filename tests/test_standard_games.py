"""The standard games are what they say: solutions, spectra, signs."""

import math

import pytest
import torch
from torch import Tensor

from compopt import CGD, DirectSolver, games
from compopt.optim.rivals import SimultaneousDescentAscent

GAMES = {
    "bilinear": games.bilinear(3.0),
    "separable": games.separable(2.0),
    "hills": games.separable(-1.0),
    "implicit-regularization": games.implicit_regularization(),
    "monotone": games.monotone_quadratic(4, mu=0.3, smoothness=2.0, interaction=3.0),
    "matching-pennies": games.matching_pennies(),
    "rock-paper-scissors": games.rock_paper_scissors(logits=True),
    "mirror": games.rock_paper_scissors(),
    "dirac": games.dirac_gan(),
    "covariance": games.covariance_estimation(4),
}
each_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)


def own_gradients(game: games.TestGame, x: Tensor, y: Tensor) -> Tensor:
    """Return both own gradients as one vector, with their graph."""
    grads = torch.autograd.grad(game.loss(x, y), [x, y], create_graph=True)
    return torch.cat([grads[0].reshape(-1), -grads[1].reshape(-1)])


@each_game
def test_solutions_are_stationary(game: games.TestGame) -> None:
    if game.solution is None:
        return
    x, y = (part.clone().requires_grad_() for part in game.solution)
    field = own_gradients(game, x, y)
    if game.name == "rock-paper-scissors":
        # On the simplex only the differences between entries count.
        field = torch.cat([part - part.mean() for part in field.split(3)])
    assert field.abs().max() < 1e-12
    assert game.distance(*game.solution) == 0.0
    assert game.distance(*game.start) > 0.1


@each_game
def test_spectra_are_those_of_the_jacobian(game: games.TestGame) -> None:
    if game.spectrum is None:
        return
    at = (torch.zeros(1).double(),) * 2 if game.solution is None else game.solution

    def field(w: Tensor) -> Tensor:
        return own_gradients(game, w[: at[0].numel()], w[at[0].numel() :])

    jacobian = torch.autograd.functional.jacobian(field, torch.cat(at))
    eigenvalues = torch.linalg.eigvals(jacobian)
    assert len(eigenvalues) == len(game.spectrum)
    # As multisets: each has its counterpart.
    distances = (eigenvalues[:, None] - game.spectrum[None, :]).abs()
    assert distances.min(0).values.max() < 1e-7
    assert distances.min(1).values.max() < 1e-7
    assert eigenvalues.sum().sub(game.spectrum.sum()).abs() < 1e-7


@each_game
def test_players_are_new_leaves_of_any_dtype(game: games.TestGame) -> None:
    for dtype in (torch.float64, torch.float32):
        x, y = game.players(dtype)
        assert x.dtype == y.dtype == dtype
        assert x.is_leaf
        assert y.requires_grad
        with torch.no_grad():
            x.add_(1)
        assert not torch.equal(x.double(), game.start[0])
        assert game.loss(x, y).dtype == dtype


@pytest.mark.filterwarnings("ignore:A step was not taken:compopt.optim.report.StepWarning")
def test_what_converges_where_theory_says() -> None:
    """CGD by its factor on each eigenvalue, descent-ascent by the spectral radius, and not."""
    for interaction, lr in ((0.5, 0.2), (3.0, 0.2), (30.0, 0.2)):
        game = games.monotone_quadratic(4, mu=0.1, interaction=interaction)
        radius = (1 - lr * game.spectrum).abs().max().item()
        ratios = {}
        for name, make in (
            ("CGD", lambda x, y, lr=lr: CGD([x], [y], lr=lr, solver=DirectSolver())),
            ("GDA", lambda x, y, lr=lr: SimultaneousDescentAscent([x], [y], lr=lr)),
        ):
            x, y = game.players()
            optimizer = make(x, y)
            for _ in range(200):
                optimizer.step(game.loss(x, y))
            ratios[name] = game.distance(x, y) / game.distance(*game.start)
        assert ratios["CGD"] < 0.5
        assert (ratios["GDA"] < 1) == (radius < 1), (interaction, radius, ratios)


def test_covariance_error_is_zero_at_rotated_solutions() -> None:
    game = games.covariance_estimation(5)
    u, _ = game.solution
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    antisymmetric = torch.triu(torch.ones(5, 5, dtype=torch.float64), 1)
    antisymmetric = antisymmetric - antisymmetric.T
    assert games.covariance_error(game, u @ rotation, antisymmetric) < 1e-12
    assert games.covariance_error(game, *game.start) > 1


def test_samples_of_the_covariance_agree_with_it() -> None:
    exact = games.covariance_estimation(4)
    sampled = games.covariance_estimation(4, num_samples=1000)
    losses = torch.stack([sampled.loss(*exact.start) for _ in range(200)])
    standard_error = losses.std() / math.sqrt(200)
    assert (losses.mean() - exact.loss(*exact.start)).abs() < 4 * standard_error
    assert losses.std() > 0


def test_two_gaussian_gan() -> None:
    gan, twin = games.two_gaussian_gan(1), games.two_gaussian_gan(1)
    assert gan.loss().item() == twin.loss().item() != games.two_gaussian_gan(2).loss().item()
    shapes = [tuple(p.shape) for p in gan.generator.parameters() if p.dim() == 2]
    assert shapes == [(128, 512), (128, 128), (128, 128), (128, 128), (2, 128)]
    weight = gan.generator[2].weight
    torch.testing.assert_close(weight @ weight.T, 0.64 * torch.eye(128), atol=1e-5, rtol=0)
    points = gan.real(4000)
    near = torch.cdist(points, gan.modes).min(1)
    assert (near.values < 0.5).all()
    assert 0.45 < near.indices.float().mean() < 0.55
    assert sum(gan.mode_shares()) <= 1


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`size`"):
        games.covariance_estimation(0)
    with pytest.raises(ValueError, match="`num_samples`"):
        games.covariance_estimation(2, num_samples=0)
    with pytest.raises(ValueError, match="No solution"):
        games.implicit_regularization().distance(*games.implicit_regularization().start)
