"""The three properties of mixed products, and operations that break each."""

import math

import pytest
import torch
from torch import Tensor, nn

from compopt.diagnosis import check_operator

PROPERTIES = ("repeatability", "linearity", "transpose")


class _Broken(torch.autograd.Function):
    """Halves its input; ``backward`` halves the gradient by a second, faulty function."""

    @staticmethod
    def forward(ctx, x):
        return x / 2


class _Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad):
        return grad / 2

    @staticmethod
    def backward(ctx, vector):
        return vector * torch.rand_like(vector)


class _Nonlinear(_Noisy):
    @staticmethod
    def backward(ctx, vector):
        return vector * vector.abs()


class _Scaled(_Noisy):
    @staticmethod
    def backward(ctx, vector):
        # The derivative of halving is halving.
        return vector * 0.49


class _NotFinite(_Noisy):
    @staticmethod
    def backward(ctx, vector):
        return vector * torch.nan


def broken(second: type[torch.autograd.Function]) -> type[torch.autograd.Function]:
    def backward(ctx, grad):
        return second.apply(grad)

    return type("_BrokenTwice", (_Broken,), {"backward": staticmethod(backward)})


def game(second: type[torch.autograd.Function] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss and the players, with ``second`` in the min player's double backward."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    y.requires_grad_()
    h = x.sin() if second is None else broken(second).apply(x.sin())
    return (h * y.exp()).sum() + (x.sum() * y.sum()).cos(), x, y


def test_a_sound_loss_passes():
    loss, x, y = game()
    report = check_operator(loss, [x], [y])
    assert report.ok
    assert report.rtol == 1e-9
    assert all(getattr(report, name) < 1e-13 for name in PROPERTIES)
    assert str(report).startswith("mixed products ok")


@pytest.mark.parametrize(
    ("second", "failing"),
    [
        pytest.param(_Noisy, PROPERTIES, id="random"),
        pytest.param(_Nonlinear, ("linearity", "transpose"), id="nonlinear"),
        pytest.param(_Scaled, ("transpose",), id="asymmetric"),
    ],
)
def test_each_property_can_fail(second, failing):
    loss, x, y = game(second)
    for players in ([x], [y]), ([y], [x]):
        report = check_operator(loss, *players)
        assert not report.ok
        for name in PROPERTIES:
            error = getattr(report, name)
            assert (error > 1e-4) if name in failing else (error < 1e-13), (name, error)
        assert f"wrong in {', '.join(failing)}:" in str(report)


def test_tolerance_decides():
    loss, x, y = game(_Scaled)
    error = check_operator(loss, [x], [y]).transpose
    assert check_operator(loss, [x], [y], rtol=error).ok
    assert not check_operator(loss, [x], [y], rtol=error / 2).ok


def test_products_that_are_not_finite_fail():
    loss, x, y = game(_NotFinite)
    for players in ([x], [y]), ([y], [x]):
        report = check_operator(loss, *players, rtol=1e3)
        assert not report.ok
        assert all(math.isnan(error) for error in report.errors.values())


def test_players_that_do_not_interact_pass():
    x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    report = check_operator(x.square().sum() - y.square().sum(), [x], [y])
    assert report.ok
    assert report.errors == dict.fromkeys(PROPERTIES, 0.0)


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)],
)
def test_default_tolerance_suits_the_dtype(dtype, rtol):
    generator = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8)).to(dtype)
    critic = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1)).to(dtype)
    loss = critic(generator(torch.randn(16, 8, dtype=dtype))).square().mean()
    report = check_operator(loss, generator, critic)
    assert report.rtol == rtol
    assert report.ok, str(report)
    eps = torch.finfo(dtype).eps
    assert max(report.errors.values()) > 0
    assert rtol > eps


def test_the_coarsest_dtype_sets_the_tolerance():
    x = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert check_operator((x * y).sum(), [x], [y]).rtol == 1e-1


def test_players_may_be_modules_parameters_or_named():
    generator, critic = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    critic[0].bias.requires_grad_(False)
    loss = critic(generator(torch.randn(4, 2))).square().mean()
    reports = [
        check_operator(loss, generator, critic),
        check_operator(loss, [generator], list(critic)),
        check_operator(loss, generator.parameters(), critic.parameters()),
        check_operator(loss, generator.named_parameters(), critic.named_parameters()),
    ]
    assert reports[0].ok
    assert reports.count(reports[0]) == 4


def test_modules_may_share_parameters_within_a_player():
    x = torch.randn(4, 2)
    network, critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh()), nn.Linear(3, 1)
    loss = critic(network(x)).square().mean()
    expected = check_operator(loss, network, critic)
    assert check_operator(loss, [network, network[0]], critic) == expected


def test_seed_chooses_the_vectors():
    loss, x, y = game(_Scaled)
    first, again, other = (check_operator(loss, [x], [y], seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.transpose != other.transpose


def test_nothing_of_the_user_is_touched():
    loss, x, y = game()
    x.grad = torch.full_like(x, 7.0)
    before, state = [x.detach().clone(), y.detach().clone()], torch.get_rng_state()
    check_operator(loss, [x], [y])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert bool((x.grad == 7).all())
    assert y.grad is None
    loss.backward()
    assert y.grad is not None


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"rtol": -1.0}, ValueError, "`rtol` must be finite and not negative, got -1.0"),
        ({"seed": 0.5}, TypeError, "`seed` must be an integer, got 0.5"),
        ({"min_params": []}, ValueError, "`min_params` is empty"),
        ({"min_params": 3}, TypeError, "`min_params` must be a module, modules, or an iterable"),
        ({"min_params": torch.ones(2)}, TypeError, "`min_params` must be a module, modules"),
        ({"max_params": [3]}, TypeError, "`max_params` must hold tensors, got int"),
        ({"max_params": [torch.ones(2)]}, ValueError, "`max_params` must have a parameter that"),
        ({"loss": torch.ones(())}, ValueError, "`loss` must be a scalar that requires grad"),
    ],
)
def test_invalid_arguments(arguments, error, text):
    loss, x, y = game()
    given = {"loss": loss, "min_params": [x], "max_params": [y], **arguments}
    with pytest.raises(error) as raised:
        check_operator(**given)
    assert text in str(raised.value)


def test_players_must_be_disjoint():
    loss, x, y = game()
    with pytest.raises(ValueError, match="`min_params` and `max_params` must be disjoint; 1 "):
        check_operator(loss, [x, y], [y])
