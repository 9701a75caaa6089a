"""Adam's relatives against their definitions, in float64."""

import math

import pytest
import torch

from benchmarks.cifar10.game_adam import ExtraAdam, OptimisticAdam

LR, BETAS, EPS = 0.1, (0.5, 0.9), 1e-8


class Moves:
    """Adam's moves of one number, from the paper."""

    def __init__(self):
        self.first = self.second = 0.0
        self.count = 0

    def __call__(self, grad):
        self.count += 1
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * grad
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * grad**2
        mean = self.first / (1 - BETAS[0] ** self.count)
        root = math.sqrt(self.second / (1 - BETAS[1] ** self.count))
        return LR * mean / (root + EPS)


def grad_of(x):
    """Return the derivative of x^4 / 4 + x^2 / 2."""
    return x**3 + x


def one(kind, **options):
    x = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    return x, kind([x], LR, betas=BETAS, eps=EPS, **options)


def test_extra_adam_moves_with_the_gradient_found_ahead():
    x, optimizer = one(ExtraAdam)
    moves, expected = Moves(), 1.5
    for _ in range(20):
        ahead = expected - moves(grad_of(expected))
        expected -= moves(grad_of(ahead))
        x.grad = grad_of(x.detach())
        optimizer.extrapolate()
        assert x.item() == pytest.approx(ahead, rel=1e-12)
        x.grad = grad_of(x.detach())
        optimizer.step()
        assert x.item() == pytest.approx(expected, rel=1e-12)


def test_optimistic_adam_takes_back_its_last_move():
    x, optimizer = one(OptimisticAdam)
    moves, expected, last = Moves(), 1.5, 0.0
    for _ in range(20):
        move = moves(grad_of(expected))
        expected += -2 * move + last
        last = move
        x.grad = grad_of(x.detach())
        optimizer.step()
        assert x.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [ExtraAdam, OptimisticAdam])
def test_maximize_turns_the_gradient(kind):
    (x, down), (y, up) = one(kind), one(kind, maximize=True)
    for _ in range(3):
        for param, optimizer, sign in ((x, down, 1), (y, up, -1)):
            for half in ("extrapolate", "step"):
                if hasattr(optimizer, half):
                    param.grad = sign * grad_of(param.detach())
                    getattr(optimizer, half)()
    assert torch.equal(x, y)


def test_the_moments_are_those_of_torch():
    x, optimizer = one(OptimisticAdam)
    y = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([y], LR, betas=BETAS, eps=EPS)
    for k in range(5):
        before = y.item()
        x.grad = y.grad = torch.tensor([math.sin(k) + 0.3], dtype=torch.float64)
        optimizer.step()
        adam.step()
        assert optimizer.state[x]["move"].item() == pytest.approx(before - y.item(), rel=1e-9)


@pytest.mark.parametrize("kind", [ExtraAdam, OptimisticAdam])
def test_state_goes_through_a_checkpoint(kind, tmp_path):
    def play(x, optimizer):
        for half in ("extrapolate", "step"):
            if hasattr(optimizer, half):
                x.grad = grad_of(x.detach())
                getattr(optimizer, half)()

    x, optimizer = one(kind)
    for _ in range(3):
        play(x, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    y, resumed = one(kind)
    y.data.copy_(x.data)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        play(x, optimizer)
        play(y, resumed)
    assert torch.equal(x, y)


def test_a_step_without_extrapolation_is_refused():
    x, optimizer = one(ExtraAdam)
    x.grad = torch.ones_like(x)
    with pytest.raises(RuntimeError, match="must follow `extrapolate`"):
        optimizer.step()


def test_bilinear_game_is_solved_by_looking_ahead_alone():
    def distance(kind):
        x, y = (torch.tensor([0.5], dtype=torch.float64, requires_grad=True) for _ in range(2))
        players = [kind([p], 0.05, betas=(0.0, 0.9)) for p in (x, y)]
        for _ in range(200):
            for half in ("extrapolate", "step"):
                if all(hasattr(player, half) for player in players):
                    x.grad, y.grad = y.detach().clone(), -x.detach().clone()
                    for player in players:
                        getattr(player, half)()
        return math.hypot(x.item(), y.item())

    assert distance(ExtraAdam) < 0.1
    assert distance(torch.optim.Adam) > 0.3
