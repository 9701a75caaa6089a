"""Vectors of which each rank keeps a part give the steps of one process that has it all."""

import pytest
import shared_game
import shared_shards as shards
import torch
from ranks import run_ranks
from shared_game import WAYS, SharedGame, Way
from shared_runs import MEMBERS, assert_all_alike, assert_same_run, of_ranks
from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

from compopt.distributed.chunks import Chunks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(shards.SHARDED, 4, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(("size", "name"), shards.RUNS)
def test_ranks_equal_one_process(ranks, size, name, monkeypatch):
    monkeypatch.setattr(shared_game, "_STANDS_FOR", [size])
    alone = WAYS[name].run(num_steps=shards.num_steps(size, name))
    results = of_ranks(ranks, "sharded_ways")
    for rank in MEMBERS[size]:
        assert_same_run(results[rank][size, name], alone)


@pytest.mark.parametrize("name", shards.COUNTED)
def test_collectives_are_those_of_the_formula(ranks, name):
    game = SharedGame()
    w, b = 4, 8
    n, m = (
        sum(-(-p.numel() // w) for p in net.parameters()) for net in (game.generator, game.critic)
    )
    guess = 1 if name == "warm" else 0
    for results in of_ranks(ranks, "counted_shards"):
        for step in results[name]:
            k = step["num_iter"]
            more = 0 if step["predicted"] else 1
            # The critic is solved for: k half products are for it, k for the generator, and one of
            # the generator's more from a first guess.
            scattered = [b * w * (n + m + 1), *[b * w * m] * (k + more), *[b * w * n] * (k + guess)]
            gathered = [*[b * n] * (k + more), *[b * m] * (k + guess), b * n, b * m]
            gathered.append(40)
            summed = [*[b] * (2 * k), 2 * b, 2 * b]
            summed += [2 * b, 2 * b, *[3 * b] * (k + more + 1)] if guess else [b, b]
            told = [*[16] * (k + more), 24]
            calls = step["calls"]
            for names, expected in (
                (("reduce_scatter_single", "reduce_scatter_tensor"), scattered),
                (("all_gather_single", "all_gather_into_tensor"), gathered),
                (("all_reduce",), summed),
                (("broadcast",), told),
            ):
                assert sorted(size for name, size in calls if name in names) == sorted(expected)
            everything = [*scattered, *gathered, *summed, *told]
            assert step["num_collectives"] == len(calls) == len(everything)
            assert step["num_bytes"] == sum(everything)


def test_checkpoint_is_loaded_on_other_numbers_of_ranks(ranks):
    results = of_ranks(ranks, "saved")
    assert_all_alike([result["end"] for result in results])
    on_two = of_ranks(ranks, "loaded_on_two")
    assert on_two[2:] == [None, None]
    assert_all_alike(on_two[:2])
    # Alone, from what has been put together of all parts.
    game = SharedGame()
    both = shards.Both(game)
    optimizer = Way(kwargs=shards.WARM).build(game, None)
    both.load_state_dict(results[0]["networks"])
    set_optimizer_state_dict(both, optimizer, results[0]["full"])
    for step in range(shards.STOP, shards.STOP + 2):
        optimizer.step(game.loss(step))
    for ours, two, alone in zip(results[0]["end"], on_two[0], game.params(), strict=True):
        torch.testing.assert_close(two, ours, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(alone.detach(), ours, rtol=1e-10, atol=1e-14)


def test_each_rank_keeps_its_part(ranks):
    results = of_ranks(ranks, "saved")
    lengths = [result["lengths"] for result in results]
    assert set(lengths[0]) == {name for name, _ in shards.Both(SharedGame()).named_parameters()}
    for name, param in shards.Both(SharedGame()).named_parameters():
        per_rank = [rank[name] for rank in lengths]
        # The moment, and the last move of either player.
        assert [len(sizes) for sizes in per_rank] == [2] * 4
        assert sum(sizes[0] for sizes in per_rank) == param.numel()
        assert max(sizes[0] for sizes in per_rank) == -(-param.numel() // 4)


def test_ranks_hold_the_same_parameters(ranks):
    assert_all_alike(of_ranks(ranks, "shard_states"))


def test_padding_takes_no_part(ranks):
    assert of_ranks(ranks, "without_eps") == [True] * 4


def test_what_cannot_be_sharded_is_refused(ranks):
    for solver, mirror, fsdp in of_ranks(ranks, "refusals"):
        assert "`solver=ConjugateGradient(...)`" in solver
        assert "`mirror` 'simplex' needs whole vectors" in mirror
        assert "DTensor, as `fully_shard` makes" in fsdp
        assert "compopt.distributed.Sharded(group)" in fsdp


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_chunks_are_those_of_torch(num_ranks):
    tensors = [torch.arange(float(n)) + 10 * n for n in (5, 0, 1, 12, 7)]
    sizes = tuple(map(len, tensors))
    packed = Chunks(sizes, 0, num_ranks).pack(tensors, torch.float64, torch.device("cpu"))
    for tensor, unpacked in zip(tensors, Chunks(sizes, 0, num_ranks).unpack(packed), strict=True):
        assert torch.equal(tensor.double(), unpacked)
    for rank in range(num_ranks):
        chunks = Chunks(sizes, rank, num_ranks)
        rows = torch.split(packed[rank], list(chunks.lengths))
        for tensor, row, own in zip(tensors, rows, chunks.own, strict=True):
            expected = dict(enumerate(tensor.chunk(num_ranks))).get(rank, tensor[:0])
            assert torch.equal(row[:own], expected.double())
            assert not row[own:].any()
