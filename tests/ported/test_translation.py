"""Programs with more networks, or more terms, than a generator and a critic have."""

import random
import re
import warnings

import pytest
import torch
from difference_steps import DifferenceSteps
from torch import Tensor, nn
from torch.nn.functional import softplus

from compopt import (
    ACGD,
    GMRES,
    ConjugateGradient,
    ConvergenceWarning,
    Game,
    MicroBatches,
    losses,
)
from compopt.penalties import R1, Lazy

LR = 0.01
EXACT = ConjugateGradient(rtol=1e-12, max_iter=300)
EXACT_PAIR = GMRES(rtol=1e-12, max_iter=300, restart=300)
SIZE = 4


def network(inputs: int, outputs: int, width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


class ImagePool:
    """The buffer of generated images of CycleGAN's program, with half of the images from before."""

    def __init__(self, size: int) -> None:
        self.size, self.images = size, []

    def query(self, images: Tensor) -> Tensor:
        result = []
        for image in images:
            # Kept without graph: an old one is a constant. The program keeps what it returns.
            if len(self.images) < self.size:
                self.images.append(image.detach())
                result.append(image)
            elif random.random() > 0.5:
                index = random.randrange(self.size)
                result.append(self.images[index])
                self.images[index] = image.detach()
            else:
                result.append(image)
        return torch.stack(result)


def mse(scores: Tensor, target: float) -> Tensor:
    return (scores - target).square().mean()


def test_cyclegan_with_replayed_images():
    """Two generators are one player, two critics the other; a pair, as old images are constants."""
    random.seed(3)
    to_b, to_a, critic_a, critic_b = network(2, 2), network(2, 2), network(2, 1), network(2, 1)
    players = [to_b, to_a], [critic_a, critic_b]
    generators, critics = ([p for net in nets for p in net.parameters()] for nets in players)
    optimizer = ACGD(generators, critics, lr=LR, solver=EXACT_PAIR)
    truth = DifferenceSteps(*players, LR)
    pools = ImagePool(2), ImagePool(2)
    num_replayed = 0
    for _ in range(5):
        real_a, real_b = torch.randn(1, 2), torch.randn(1, 2)
        before = [list(pool.images) for pool in pools], random.getstate()

        def pair(real_a=real_a, real_b=real_b, before=before):
            for pool, images in zip(pools, before[0], strict=True):
                pool.images = list(images)
            random.setstate(before[1])
            fake_b, fake_a = to_b(real_a), to_a(real_b)
            cycle = (to_a(fake_b) - real_a).abs().mean() + (to_b(fake_a) - real_b).abs().mean()
            identity = (to_a(real_a) - real_a).abs().mean() + (to_b(real_b) - real_b).abs().mean()
            loss_g = mse(critic_a(fake_a), 1) + mse(critic_b(fake_b), 1) + 10 * cycle + 5 * identity
            seen_a, seen_b = pools[0].query(fake_a), pools[1].query(fake_b)
            loss_d = mse(critic_a(real_a), 1) + mse(critic_a(seen_a), 0)
            loss_d = loss_d + mse(critic_b(real_b), 1) + mse(critic_b(seen_b), 0)
            return loss_g, loss_d / 2

        with truth.expected(pair):
            optimizer.step(pair())
        held = [{id(image) for image in images} for images in before[0]]
        num_replayed += sum(
            len(old - {id(image) for image in pool.images})
            for old, pool in zip(held, pools, strict=True)
        )
    # Otherwise this is no test of the pool.
    assert num_replayed > 0
    assert truth.num_checked == 5


def test_stylegan2_with_accumulation_lazy_penalties_and_path_length():
    mapping, synthesis, critic = network(2, 3), network(3, 2), network(2, 1)
    optimizer = ACGD(
        [*mapping.parameters(), *synthesis.parameters()], critic.parameters(), lr=LR, solver=EXACT
    )
    truth = DifferenceSteps([mapping, synthesis], [critic], LR)
    r1 = Lazy(R1(), every=2)
    mean_length = torch.zeros(())
    with_terms = []
    for step in range(4):
        reals, noises = torch.randn(2, SIZE, 2).unbind(), torch.randn(2, SIZE, 2).unbind()
        directions, average = torch.randn(SIZE, 2), mean_length.clone()
        num_calls = r1.num_calls
        lengths = []

        def loss(real, noise):
            return (
                -softplus(-critic(real)).mean() - softplus(critic(synthesis(mapping(noise)))).mean()
            )

        def path_length(noise=noises[0], directions=directions, average=average, lengths=lengths):
            codes = mapping(noise)
            samples = synthesis(codes)
            (grads,) = torch.autograd.grad((samples * directions).sum(), codes, create_graph=True)
            norms = grads.square().sum(1).sqrt()
            lengths[:] = [norms.detach().mean()]
            goal = average + 0.01 * (norms.detach().mean() - average)
            return 2 * (norms - goal).square().mean()

        def game(step=step, reals=reals, noises=noises, num_calls=num_calls, path=path_length):
            r1.num_calls = num_calls
            parts = [loss(real, noise) for real, noise in zip(reals, noises, strict=True)]
            return Game(
                (parts[0] + parts[1]) / 2,
                min_penalty=4 * path() if step % 4 == 0 else None,
                max_penalty=r1(critic, torch.cat(reals)),
            )

        with truth.expected(game):
            terms = game()
            parts = MicroBatches(loss(*part) for part in zip(reals, noises, strict=True))
            optimizer.step(parts, min_penalty=terms.min_penalty, max_penalty=terms.max_penalty)
        with_terms.append((terms.min_penalty is not None, terms.max_penalty is not None))
        if lengths:
            mean_length = mean_length + 0.01 * (lengths[0] - mean_length)
    assert with_terms == [(True, True), (False, False), (False, True), (False, False)]
    assert truth.num_checked == 4


def test_esrgan_with_a_warm_up_of_the_generator():
    """Its averages go on where the game begins: the first competitive move is not longer."""
    generator, critic = network(2, 4), network(4, 1)
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=LR, solver=EXACT)
    truth = DifferenceSteps([generator], [critic], LR)
    low, high = torch.randn(SIZE, 2), torch.randn(SIZE, 4)

    def pixels() -> Tensor:
        # The published weight is 5e-3 on the adversarial term. Here this term is divided instead,
        # from the warm-up on, so that the critic's loss stays as it is.
        return (generator(low) - high).abs().mean() / 5e-3

    moves = []
    for _ in range(20):
        before = generator[0].weight.detach().clone()
        with truth.expected(pixels, "min"):
            optimizer.step(pixels(), player="min")
        moves.append(float((generator[0].weight.detach() - before).norm()))
    assert not any(param in optimizer.state for param in critic.parameters())

    def game() -> Game:
        on_real, on_fake = critic(high), critic(generator(low))
        # Relativistic average; the zero-sum form, which the critic raises.
        loss = (
            -softplus(on_fake.mean() - on_real).mean() - softplus(on_fake - on_real.mean()).mean()
        )
        return Game(loss, min_penalty=pixels())

    before = generator[0].weight.detach().clone()
    with truth.expected(game):
        terms = game()
        optimizer.step(terms.loss, min_penalty=terms.min_penalty)
    first = float((generator[0].weight.detach() - before).norm())
    assert first == pytest.approx(moves[-1], rel=0.5)


@pytest.mark.parametrize("weight", [1.0, 5e-3])
def test_a_small_adversarial_weight_in_either_form(weight):
    """The pair has the weight on the generator's term; the zero-sum form divides the other term."""
    ends = []
    for is_pair in (True, False):
        torch.manual_seed(0)
        generator, critic = network(2, 4), network(4, 1)
        low, high = torch.randn(SIZE, 2), torch.randn(SIZE, 4)
        solver = EXACT_PAIR if is_pair else EXACT
        optimizer = ACGD(
            generator.parameters(), critic.parameters(), lr=LR, eps=1e-30, solver=solver
        )
        fake = generator(low)
        loss = critic(high).mean() - critic(fake).mean()
        pixels = (fake - high).abs().mean()
        if is_pair:
            optimizer.step((weight * loss + pixels, -loss))
        else:
            optimizer.step(loss, min_penalty=pixels / weight)
        ends.append(torch.cat([p.detach().view(-1) for p in [*generator.parameters()]]))
    # Adaptive step sizes do not see the scale of the generator's own loss.
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-12)


def test_cyclegan_trains_at_its_own_learning_rate_with_two_products_a_step():
    """Domains that differ by their means; the zero-sum form, its solve cut off at one iteration."""
    to_b, to_a, critic_a, critic_b = (network(4, size, 128) for size in (4, 4, 1, 1))
    generators, critics = (
        [*a.parameters(), *b.parameters()] for a, b in ((to_b, to_a), (critic_a, critic_b))
    )
    solver = ConjugateGradient(rtol=0.0, max_iter=1)
    optimizer = ACGD(generators, critics, lr=2e-4, solver=solver)
    history = []
    for _ in range(150):
        real_a, real_b = 0.3 * torch.randn(16, 4) - 0.5, 0.3 * torch.randn(16, 4) + 0.5
        fake_b, fake_a = to_b(real_a), to_a(real_b)
        cycle = (to_a(fake_b) - real_a).abs().mean() + (to_b(fake_a) - real_b).abs().mean()
        on_a = losses.least_squares(critic_a(real_a), critic_a(fake_a))
        on_b = losses.least_squares(critic_b(real_b), critic_b(fake_b))
        optimizer.step(losses.zero_sum(on_a) + losses.zero_sum(on_b), min_penalty=10 * cycle)
        assert optimizer.last_step.num_hvp <= 10
        offset = (fake_b.mean() - 0.5).abs() + (fake_a.mean() + 0.5).abs()
        history.append(torch.stack([cycle, on_a[1] + on_b[1], offset]).detach())
    first, last = torch.stack(history[:5]).mean(0), torch.stack(history[-5:]).mean(0)
    assert last[0] < 0.7 * first[0]
    assert last[1] < 0.7 * first[1]
    assert last[2] < 0.5 * first[2]


def test_what_a_solve_that_is_cut_off_says_leads_to_few_products():
    generator, critic = network(2, 2, 16), network(2, 1, 16)
    players = list(generator.parameters()), list(critic.parameters())
    inputs, images = torch.randn(SIZE, 2), torch.randn(SIZE, 2)

    def step(optimizer: ACGD) -> None:
        fake = generator(inputs)
        pair = losses.least_squares(critic(images), critic(fake))
        optimizer.step(losses.zero_sum(pair), min_penalty=(fake - inputs).abs().mean())

    # Stands for networks so wide that all iterations are used.
    with pytest.warns(ConvergenceWarning, match="min_penalty") as said:
        step(ACGD(*players, lr=0.5, solver=ConjugateGradient(rtol=1e-13, max_iter=3)))
    (advice,) = re.findall(r"`solver=(\w+\(.*?\))`", str(said[0].message))
    followed = ACGD(*players, lr=0.5, solver=eval(advice, {"ConjugateGradient": ConjugateGradient}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(followed)
    assert followed.last_step.num_hvp == 2
