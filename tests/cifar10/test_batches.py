"""Draws are a function of seed and number alone."""

import torch
from image_cases import random_images

from benchmarks.cifar10.batches import Batches, derived_seed
from benchmarks.cifar10.data import to_float

IMAGES = random_images(22)


def batches(**changes):
    options = {"batch_size": 4, "latent_size": 3, "seed": 0} | changes
    return Batches(IMAGES, **options)


def test_draws_repeat_in_any_order():
    forward = [batches().draw(index) for index in range(12)]
    source = batches()
    for index in reversed(range(12)):
        draw = source.draw(index)
        assert torch.equal(draw.real, forward[index].real)
        assert torch.equal(draw.noise, forward[index].noise)
        assert torch.equal(draw.second_noise, forward[index].second_noise)
        own, other = (torch.rand(3, generator=d.random) for d in (draw, batches().draw(index)))
        assert torch.equal(own, other)


def test_an_epoch_shows_each_image_at_most_once():
    source = batches()
    assert source.per_epoch == 5
    everything = {image.numpy().tobytes() for image in to_float(IMAGES)}
    orders = []
    for epoch in range(3):
        seen = [
            image.numpy().tobytes()
            for index in range(5 * epoch, 5 * epoch + 5)
            for image in source.draw(index).real
        ]
        assert len(set(seen)) == 20
        assert set(seen) <= everything
        orders.append(tuple(seen))
    assert len(set(orders)) == 3


def test_seeds_and_numbers_give_unlike_draws():
    draws = [batches(seed=seed).draw(index) for seed in range(2) for index in range(2)]
    noises = {draw.noise.numpy().tobytes() for draw in draws}
    noises |= {draw.second_noise.numpy().tobytes() for draw in draws}
    assert len(noises) == 8
    assert len({draw.real.numpy().tobytes() for draw in draws}) == 4


def test_parts_make_up_the_whole():
    whole = batches().draw(7)
    parts = [batches(part=(rank, 2)).draw(7) for rank in range(2)]
    assert torch.equal(torch.stack([p.real for p in parts], 1).flatten(0, 1), whole.real)
    assert torch.equal(torch.stack([p.noise for p in parts], 1).flatten(0, 1), whole.noise)
    first, second = (torch.rand(3, generator=part.random) for part in parts)
    assert not torch.equal(first, second)


def test_seeds_are_spread_and_fixed():
    assert derived_seed("order", 0, 1) == derived_seed("order", 0, 1)
    seeds = {derived_seed(*parts) for parts in (("a", 0, 1), ("a", 1, 0), ("b", 0, 1), ("a", 1))}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
