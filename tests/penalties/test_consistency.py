"""Consistency terms against closed forms, and the usual augmentation."""

import pytest
import torch
from dense import assert_close
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from compopt.penalties import BalancedConsistency, Consistency, FlipAndShift, consistency_penalty


def add_one(samples: Tensor, generator: torch.Generator | None) -> Tensor:
    return samples + 1


def critic_of(*weights: float) -> nn.Linear:
    critic = nn.Linear(len(weights), 1).double()
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([weights]))
    return critic


class TestPenalty:
    def test_of_a_linear_critic(self):
        """D(x + 1) - D(x) is the sum of the weights."""
        critic, x = critic_of(1.0, 3.0), torch.randn(5, 2, dtype=torch.float64)
        value = Consistency(2.0, add_one)(critic, x)
        assert_close(value.detach(), torch.tensor(2.0 * 16).double(), 1e-12)
        value.backward()
        assert_close(critic.weight.grad, torch.full((1, 2), 2.0 * 2 * 4).double(), 1e-12)
        assert_close(critic.bias.grad, torch.zeros(1).double(), 1e-12)

    def test_scores_of_patches_add_up(self):
        x = torch.randn(3, 2, dtype=torch.float64)
        value = consistency_penalty(lambda x: x.view(-1, 1, 1, 2) * 2, x, x + 1)
        assert_close(value, torch.tensor(8.0).double(), 1e-12)

    def test_balanced_has_two_parts(self):
        critic = critic_of(1.0, 3.0)
        x = torch.randn(5, 2, dtype=torch.float64)

        def augment(samples: Tensor, generator: torch.Generator | None) -> Tensor:
            return samples + (1 if torch.equal(samples, x) else 2)

        value = BalancedConsistency(2.0, 0.5, augment)(critic, x, 7 * x)
        assert_close(value.detach(), torch.tensor(2.0 * 16 + 0.5 * 64).double(), 1e-12)

    @pytest.mark.parametrize("detach", [True, False])
    def test_fakes_keep_their_graph_if_told(self, detach):
        critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
        real = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
        fake = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
        term = BalancedConsistency(augment=add_one, detach=detach)(critic, real, fake)
        grads = torch.autograd.grad(term, [real, fake], allow_unused=True)
        assert grads[0] is None
        assert (grads[1] is None) == detach

    def test_derivatives_by_finite_differences(self):
        x = torch.randn(3, 2, dtype=torch.float64)

        def value(a: Tensor, b: Tensor) -> Tensor:
            return consistency_penalty(lambda x: torch.tanh(x @ a) @ b, x, 2 * x)

        inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4), (4,))]
        assert gradcheck(value, inputs)
        assert gradgradcheck(value, inputs)

    def test_bad_input(self):
        critic, x = critic_of(1.0, 1.0), torch.ones(3, 2).double()
        with pytest.raises(TypeError, match="`augment` must be callable"):
            Consistency(augment=3)
        with pytest.raises(ValueError, match="`fake_coefficient` must be finite"):
            BalancedConsistency(fake_coefficient=-1.0)
        with pytest.raises(ValueError, match=r"must keep the shape \(3, 2\), got \(2, 2\)"):
            Consistency(augment=lambda samples, generator: samples[:2])(critic, x)
        with pytest.raises(ValueError, match=r"`samples` must be images \[n, c, h, w\]"):
            Consistency()(critic, x)
        with pytest.raises(ValueError, match=r"`critic` \(Linear\) must have trainable weights"):
            Consistency(augment=add_one)(critic.requires_grad_(False), x)


class TestFlipAndShift:
    IMAGES = torch.arange(2 * 5 * 6, dtype=torch.float64).view(1, 2, 5, 6)

    def copies(self, augment: FlipAndShift, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return augment(self.IMAGES.expand(count, -1, -1, -1), generator)

    def test_every_copy_is_a_flip_and_shift_and_each_occurs(self):
        seen = self.copies(FlipAndShift(max_shift=1), 600)
        allowed = []
        for flipped in (self.IMAGES, self.IMAGES.flip(3)):
            padded = nn.functional.pad(flipped, (1, 1, 1, 1), mode="reflect")
            allowed += [padded[..., i : i + 5, j : j + 6] for i in range(3) for j in range(3)]
        is_copy = (seen.unsqueeze(1) == torch.stack(allowed, dim=1)).flatten(2).all(2)  # [600, 18]
        assert is_copy.any(1).all()
        counts = is_copy.sum(0)
        # 600 / 18 = 33 each, five standard deviations around.
        assert counts.min() > 33 - 28
        assert counts.max() < 33 + 28

    def test_without_flip_and_shift_nothing_changes(self):
        seen = self.copies(FlipAndShift(max_shift=0, flip=False), 3)
        assert torch.equal(seen, self.IMAGES.expand(3, -1, -1, -1))

    def test_repeats_with_its_generator_and_is_differentiable(self):
        images = torch.randn(4, 1, 5, 5, dtype=torch.float64, requires_grad=True)

        def augment(images: Tensor) -> Tensor:
            return FlipAndShift(2)(images, torch.Generator().manual_seed(3))

        assert torch.equal(augment(images), augment(images))
        assert gradcheck(augment, (images,))

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`max_shift` must be below the image's 5 x 6"):
            self.copies(FlipAndShift(max_shift=5), 2)
        with pytest.raises(ValueError, match="`max_shift` must be at least 0"):
            FlipAndShift(max_shift=-1)
