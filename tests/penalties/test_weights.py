"""L2, orthogonality, clipping, and terms at every n-th step."""

import pytest
import torch
from dense import assert_close
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils import parametrizations

from compopt.penalties import L2, R1, Layers, Lazy, Orthogonal, WeightClipping

BOTH = Layers(kinds=("conv", "linear"))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2)).double()


class TestL2:
    @pytest.mark.parametrize("biases", [False, True])
    def test_is_half_the_sum_of_squares(self, biases):
        net = network()
        counted = list(net.parameters()) if biases else [net[0].weight, net[2].weight]
        value = L2(0.3, biases=biases)(net)
        expected = 0.15 * sum((p**2).sum() for p in counted)
        assert_close(value.detach(), expected.detach(), 1e-14)

    def test_acts_as_the_weight_decay_of_torch(self):
        by_term, by_option = network(), network()
        optimizers = (
            torch.optim.Adam(by_term.parameters()),
            torch.optim.Adam(by_option.parameters(), weight_decay=0.3),
        )
        for _ in range(3):
            for net, optimizer in zip((by_term, by_option), optimizers, strict=True):
                optimizer.zero_grad()
                loss = net(torch.ones(1, 2, 2, 2).double()).sum()
                if net is by_term:
                    loss = loss + L2(0.3, biases=True)(net)
                loss.backward()
                optimizer.step()
        for one, other in zip(by_term.parameters(), by_option.parameters(), strict=True):
            assert_close(one.detach(), other.detach(), 1e-12)

    def test_frozen_weights_do_not_count(self):
        net = network()
        net[0].requires_grad_(False)
        expected = 0.5 * net[2].weight.square().sum()
        assert_close(L2(1.0)(net).detach(), expected.detach(), 1e-14)


class TestOrthogonal:
    def test_an_orthonormal_bank_costs_nothing(self):
        net = network()
        for layer in (net[0], net[2]):
            nn.init.orthogonal_(layer.weight)
        for diagonal in (False, True):
            value = Orthogonal(1.0, diagonal=diagonal, layers=BOTH)(net)
            assert float(value.detach()) == pytest.approx(0, abs=1e-28)
        with torch.no_grad():
            net[2].weight.mul_(torch.tensor([[2.0], [3.0]]))
        # Lengths cost only with the diagonal: (4 - 1)^2 + (9 - 1)^2.
        assert float(Orthogonal(1.0, layers=BOTH)(net).detach()) == pytest.approx(0, abs=1e-26)
        value = Orthogonal(1.0, diagonal=True, layers=BOTH)(net)
        assert float(value.detach()) == pytest.approx(9 + 64, rel=1e-12)

    @pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
    def test_gradient_is_twice_that_of_the_released_code(self, transposed):
        cls = nn.ConvTranspose2d if transposed else nn.Conv2d
        layer = cls(3, 4, 2, bias=False).double()
        Orthogonal(0.01)(layer).backward()

        def rows(t: torch.Tensor) -> torch.Tensor:
            return (t.movedim(1, 0) if transposed else t).detach().flatten(1)

        w = rows(layer.weight)
        released = 2 * (w @ w.T * (1 - torch.eye(4).double())) @ w
        assert_close(rows(layer.weight.grad), 0.01 * 2 * released, 1e-12)

    def test_groups_are_compared_within(self):
        layer = nn.Conv2d(4, 4, 2, groups=2, bias=False).double()
        halves = layer.weight.detach().flatten(1).split(2)
        expected = sum(2 * float(half[0] @ half[1]) ** 2 for half in halves)
        assert float(Orthogonal(1.0)(layer).detach()) == pytest.approx(expected, rel=1e-12)

    def test_derivatives_by_finite_differences(self):
        for penalty in (Orthogonal(1.0, diagonal=True), L2(1.0)):
            wrapped = Term(nn.Conv2d(1, 3, 2).double(), penalty)
            weight = wrapped.layer.weight.detach().clone().requires_grad_()

            def value(weight: torch.Tensor, wrapped: nn.Module = wrapped) -> torch.Tensor:
                return functional_call(wrapped, {"layer.weight": weight}, ())

            if isinstance(penalty, Orthogonal):
                assert gradcheck(value, (weight,))
                assert gradgradcheck(value, (weight,))
            else:
                (grad,) = torch.autograd.grad(value(weight), weight, create_graph=True)
                assert_close(grad.detach(), weight.detach(), 1e-14)

    def test_the_weight_that_multiplies_counts(self):
        layer = parametrizations.spectral_norm(nn.Conv2d(3, 4, 2).double())
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(100)
        layer.eval()
        expected = Orthogonal(1.0)(layer).detach()
        plain = nn.Conv2d(3, 4, 2).double()
        with torch.no_grad():
            plain.weight.copy_(layer.weight)
        assert_close(Orthogonal(1.0)(plain).detach(), expected, 1e-12)


class Term(nn.Module):
    def __init__(self, layer: nn.Module, penalty: Orthogonal | L2) -> None:
        super().__init__()
        self.layer = layer
        self.penalty = penalty

    def forward(self) -> torch.Tensor:
        return self.penalty(self.layer)


class TestWeightClipping:
    def test_clamps_in_place(self):
        net = network()
        with torch.no_grad():
            net[0].bias.fill_(-5.0)
        frozen = net[2].bias.requires_grad_(False).clone()
        before = net[0].weight.detach().clone()
        WeightClipping(0.1)(net)
        assert torch.equal(net[0].weight, before.clamp(-0.1, 0.1))
        assert float(net[0].bias.detach().min()) == -0.1
        assert torch.equal(net[2].bias, frozen)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`limit` must be positive"):
            WeightClipping(0.0)
        with pytest.raises(TypeError, match="`module` must be a module, got list"):
            WeightClipping()([torch.ones(2)])


class TestLazy:
    def test_is_due_every_nth_call_with_n_times_its_weight(self):
        critic, x = nn.Linear(3, 1), torch.randn(4, 3)
        lazy = Lazy(R1(), every=3)
        terms = [lazy(critic, x) for _ in range(7)]
        assert [term is not None for term in terms] == [True, False, False] * 2 + [True]
        plain = R1()(critic, x).detach()
        assert_close(terms[3].detach(), 3 * plain, 1e-6)

    def test_costs_nothing_in_between(self):
        calls = []
        lazy = Lazy(lambda: calls.append(1) or torch.ones(()), every=4)
        for _ in range(8):
            lazy()
        assert len(calls) == 2

    def test_a_resumed_run_keeps_its_rhythm(self):
        lazy, resumed = (Lazy(lambda: torch.ones(()), every=3) for _ in range(2))
        for _ in range(4):
            lazy()
        resumed.load_state_dict(lazy.state_dict())
        assert [resumed() is None for _ in range(3)] == [True, True, False]

    def test_a_call_that_fails_can_be_repeated(self):
        lazy = Lazy(R1(), every=2)
        with pytest.raises(ValueError, match="`real` must have shape"):
            lazy(nn.Linear(3, 1), torch.ones(3))
        assert lazy(nn.Linear(3, 1), torch.ones(2, 3)) is not None
        assert repr(lazy) == "Lazy(R1(coefficient=10.0), every=2)"

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`every` must be at least 1, got 0"):
            Lazy(R1(), every=0)
        with pytest.raises(TypeError, match="`penalty` must be callable"):
            Lazy(3.0, every=2)
