"""A step through the common interface is the step that it should be."""

import copy
import dataclasses

import pytest
import torch

from benchmarks.cifar10.batches import Batches
from benchmarks.cifar10.game import GanGame
from benchmarks.cifar10.losses import LOSSES
from benchmarks.cifar10.networks import build_networks
from benchmarks.cifar10.optimizers import STEPPERS, OptimizerConfig
from benchmarks.cifar10.terms import TermConfig, build_term
from compopt import ACGD, CGD, ConjugateGradient
from compopt.distributed import Replicated
from compopt.penalties import WganGP


def make(tiny, images, kind="adam-simultaneous", loss="wgan", term="none", **options):
    """Return a stepper on small networks in float64, and its draws."""
    generator, critic = (m.double() for m in build_networks(tiny.network, 0))
    game = GanGame(generator, critic, LOSSES[loss], build_term(TermConfig(term), critic))
    stepper = STEPPERS[kind](game, OptimizerConfig(kind=kind, lr=1e-2, **options))
    source = Batches(images.train, batch_size=8, latent_size=8, seed=0)
    draws = [
        dataclasses.replace(
            draw,
            real=draw.real.double(),
            noise=draw.noise.double(),
            second_noise=draw.second_noise.double(),
        )
        for draw in map(source.draw, range(stepper.draws))
    ]
    return stepper, draws


def copies(stepper):
    return copy.deepcopy((stepper.game.generator, stepper.game.critic))


def assert_same_weights(stepper, networks, rtol=1e-9):
    # A parameter moves by about the learning rate, 1e-2.
    for module, other in zip((stepper.game.generator, stepper.game.critic), networks, strict=True):
        for a, b in zip(module.parameters(), other.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=rtol, atol=1e-11)


def adams(networks, **options):
    return [
        torch.optim.Adam(m.parameters(), lr=1e-2, betas=(0.5, 0.99), **options) for m in networks
    ]


def test_simultaneous_adam_is_two_adams_from_one_point(tiny, images):
    stepper, (draw,) = make(tiny, images, term="wgan-gp")
    networks = generator, critic = copies(stepper)
    players = adams(networks)
    state = draw.random.get_state()
    step = stepper.step([draw])
    draw.random.set_state(state)
    fake = generator(draw.noise)
    value = critic(draw.real).mean() - critic(fake).mean()
    penalty = WganGP()(critic, draw.real, fake, generator=draw.random)
    of_generator = torch.autograd.grad(value, list(generator.parameters()), retain_graph=True)
    of_critic = torch.autograd.grad(penalty - value, list(critic.parameters()), allow_unused=True)
    for module, grads in zip(networks, (of_generator, of_critic), strict=True):
        for param, grad in zip(module.parameters(), grads, strict=True):
            param.grad = grad
    for player in players:
        player.step()
    assert_same_weights(stepper, networks)
    assert step.value.item() == pytest.approx(value.item(), rel=1e-12)
    assert (step.gradient_calls, step.mixed_products) == (4, 0)


@pytest.mark.parametrize("loss", ["non-saturating", "hinge"])
def test_simultaneous_adam_gives_each_player_its_own_loss(tiny, images, loss):
    stepper, (draw,) = make(tiny, images, loss=loss)
    networks = generator, critic = copies(stepper)
    players = adams(networks)
    stepper.step([draw])
    fake = critic(generator(draw.noise))
    LOSSES[loss].generator_objective(fake).backward(inputs=list(generator.parameters()))
    fake = critic(generator(draw.noise).detach())
    LOSSES[loss].critic_objective(critic(draw.real), fake).backward()
    for player in players:
        player.step()
    assert_same_weights(stepper, networks)


@pytest.mark.parametrize("loss", LOSSES)
def test_alternating_adam_takes_the_critic_first(tiny, images, loss):
    stepper, draws = make(tiny, images, "adam-alternating", loss, critic_steps=3)
    assert len(draws) == 3
    networks = generator, critic = copies(stepper)
    player, opponent = adams(networks)
    step = stepper.step(draws)
    for draw in draws:
        opponent.zero_grad()
        fake = critic(generator(draw.noise).detach())
        LOSSES[loss].critic_objective(critic(draw.real), fake).backward()
        opponent.step()
    LOSSES[loss].generator_objective(critic(generator(draws[-1].second_noise))).backward()
    player.step()
    assert_same_weights(stepper, networks)
    assert step.gradient_calls == 4


def test_extra_adam_uses_a_second_draw_at_the_point_ahead(tiny, images):
    stepper, draws = make(tiny, images, "extra-adam", "bce")
    assert len(draws) == 2
    start = copies(stepper)
    simultaneous, _ = make(tiny, images, loss="bce")
    simultaneous.step(draws[:1])
    seen = []
    both = stepper.game.both
    object.__setattr__(
        stepper.game, "both", lambda draw: (seen.append((draw, copies(stepper))), both(draw))[1]
    )
    stepper.step(draws)
    assert [draw for draw, _ in seen] == draws
    assert_same_weights(simultaneous, seen[1][1])
    # The way back: the second move starts where the first one did.
    for module, origin in zip((stepper.game.generator, stepper.game.critic), start, strict=True):
        for a, b in zip(module.parameters(), origin.parameters(), strict=True):
            # From there Adam's second move is bounded, here by 1.5 learning rates.
            assert (a - b).abs().max() < 1.6e-2


@pytest.mark.parametrize("loss", ["bce", "non-saturating"])
@pytest.mark.parametrize("term", ["none", "wgan-gp"])
def test_optimistic_adam_begins_with_twice_the_move_of_adam(tiny, images, loss, term):
    stepper, draws = make(tiny, images, "optimistic-adam", loss, term)
    adam, _ = make(tiny, images, loss=loss, term=term)
    start = copies(stepper)
    random_state = draws[0].random.get_state()
    stepper.step(draws)
    draws[0].random.set_state(random_state)
    adam.step(draws)
    for network, once, origin in zip(copies(stepper), copies(adam), start, strict=True):
        for a, b, c in zip(*(m.parameters() for m in (network, once, origin)), strict=True):
            torch.testing.assert_close(a, 2 * b - c, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_interaction_is_a_multiple_of_the_learning_rate(tiny, images, strength):
    stepper, draws = make(tiny, images, "acgd", interaction=strength)
    networks = generator, critic = copies(stepper)
    interaction = None if strength == 1 else strength * 1e-2
    solver = ConjugateGradient(rtol=1e-2, max_iter=20)
    optimizer = ACGD(
        generator.parameters(),
        critic.parameters(),
        lr=1e-2,
        interaction=interaction,
        solver=solver,
    )
    value = critic(draws[0].real).mean() - critic(generator(draws[0].noise)).mean()
    optimizer.step(value)
    step = stepper.step(draws)
    assert_same_weights(stepper, networks)
    assert (step.mixed_products == 0) is (strength == 0)


@pytest.mark.parametrize(("kind", "make_optimizer"), [("cgd", CGD), ("acgd", ACGD)])
@pytest.mark.parametrize("term", ["none", "wgan-gp", "advas"])
def test_competitive_steps_are_those_of_the_package(tiny, images, kind, make_optimizer, term):
    stepper, (draw,) = make(tiny, images, kind, "bce", term, rtol=1e-10, max_iter=50)
    generator, critic = networks = copies(stepper)
    game = GanGame(generator, critic, LOSSES["bce"], build_term(TermConfig(term), critic))
    optimizer = make_optimizer(
        generator.parameters(),
        critic.parameters(),
        lr=1e-2,
        solver=ConjugateGradient(rtol=1e-10, max_iter=50),
    )
    state = draw.random.get_state()
    step = stepper.step([draw])
    draw.random.set_state(state)
    objectives = game.both(draw)
    optimizer.step(
        objectives.loss, min_penalty=objectives.min_penalty, max_penalty=objectives.max_penalty
    )
    assert_same_weights(stepper, networks)
    assert step.mixed_products == optimizer.last_step.num_hvp > 0
    assert step.num_iter == optimizer.last_step.num_iter > 0


@pytest.mark.parametrize("kind", STEPPERS)
def test_learning_rates_reach_their_players(tiny, images, kind):
    stepper, draws = make(tiny, images, kind, lr_ratio=1e-28)
    generator, critic = copies(stepper)
    stepper.step(draws)
    moved = [
        max((a - b).abs().max().item() for a, b in zip(m.parameters(), n.parameters(), strict=True))
        for m, n in ((stepper.game.generator, generator), (stepper.game.critic, critic))
    ]
    assert moved[0] > 1e-9
    assert moved[1] < 1e-25


@pytest.mark.parametrize("kind", STEPPERS)
def test_state_goes_through_a_checkpoint(tiny, images, kind, tmp_path):
    stepper, draws = make(tiny, images, kind)
    stepper.step(draws)
    other, _ = make(tiny, images, kind)
    for module, source in zip(
        (other.game.generator, other.game.critic), copies(stepper), strict=True
    ):
        module.load_state_dict(source.state_dict())
    torch.save(stepper.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for one in (stepper, other):
        one.step(draws)
    for a, b in zip(stepper.game.critic.parameters(), other.game.critic.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", STEPPERS)
def test_processes_share_gradients_and_products(tiny, images, kind):
    stepper, draws = make(tiny, images, kind)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        group = torch.distributed.group.WORLD
        shared = STEPPERS[kind](stepper.game, OptimizerConfig(kind=kind), group)
        placement = getattr(shared, "_placement", None) or shared.optimizers["both"]._placement
        assert isinstance(placement, Replicated)
        shared.step(draws)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_second_derivatives_may_come_from_a_part_of_the_batch(tiny, images, share, monkeypatch):
    stepper, (draw,) = make(tiny, images, "acgd")
    config = OptimizerConfig(kind="acgd", curvature_share=share)
    seen = []
    value = type(stepper.game).value

    def noted(game, part):
        seen.append(part)
        return value(game, part)

    monkeypatch.setattr(type(stepper.game), "value", noted)
    step = STEPPERS["acgd"](stepper.game, config).step([draw])
    (part,) = seen
    count = round(share * len(draw.real))
    assert torch.equal(part.real, draw.real[:count])
    assert torch.equal(part.noise, draw.noise[:count])
    assert step.gradient_calls == 4
