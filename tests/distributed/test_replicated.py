"""Processes that share a batch take the steps of one process that has it all."""

import threading

import pytest
import shared_game
import shared_scenarios as scenarios
import torch
from interruptions import Interrupted, Lines
from ranks import run_ranks
from shared_game import WAYS, SharedGame
from shared_runs import MEMBERS, assert_all_alike, assert_same_run, of_ranks
from torch import Tensor

from compopt import ACGD
from compopt._flat import FlatLayout
from compopt.distributed import Replicated, batch_weight, buckets
from compopt.distributed.buckets import OverlappedSum, plan_buckets
from compopt.distributed.placement import Pass
from compopt.kernels import use_backend
from compopt.kernels._backend import backend_in_force


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(scenarios.REPLICATED, 4, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(("size", "name"), scenarios.RUNS)
def test_ranks_equal_one_process(ranks, size, name, monkeypatch):
    monkeypatch.setattr(shared_game, "_STANDS_FOR", [size])
    alone = WAYS[name].run(num_steps=scenarios.num_steps(size, name))
    for rank in MEMBERS[size]:
        assert_same_run(of_ranks(ranks, "replicated_ways")[rank][size, name], alone)


@pytest.mark.parametrize("name", ["plain", "penalties"])
def test_size_of_buckets_changes_nothing_but_their_number(ranks, name):
    alone = WAYS[name].run(num_steps=3)
    for rank in range(4):
        assert_same_run(of_ranks(ranks, "small_buckets")[rank][name], alone)


def test_collectives_are_those_of_the_formula(ranks):
    game = SharedGame()
    n, m = (sum(p.numel() for p in net.parameters()) for net in (game.generator, game.critic))
    seen = set()
    for results in of_ranks(ranks, "counted"):
        for step in results["tight"]:
            k = step["num_iter"]
            looks = k if step["predicted"] else k + 1
            assert step["num_hvp"] == (2 * k if step["predicted"] else 2 * k + 1)
            # The critic is the smaller player: it is solved for, and the generator replies.
            to_critic = step["num_hvp"] - k
            reduced = [8 * (n + m + 1), *[8 * m] * to_critic, *[8 * n] * k]
            told = [*[16] * looks, 24]
            calls = step["calls"]
            assert sorted(b for name, b in calls if name == "all_reduce") == sorted(reduced)
            assert sorted(b for name, b in calls if name == "broadcast") == sorted(told)
            assert [b for name, b in calls if name in scenarios.GATHERINGS] == [40]
            assert step["num_collectives"] == len(calls) == 2 + step["num_hvp"] + looks + 1
            assert step["num_bytes"] == 40 + sum(reduced) + sum(told)
            seen.add(k)
        for step in results["general-sum"]:
            sent = sorted(b for name, b in step["calls"] if name == "all_reduce")
            half = step["num_hvp"] // 2
            more = step["num_hvp"] - 2 * half
            # The first product takes the generator's plain move to the critic.
            to_critic = [8 * m] * (half + more)
            assert sent == sorted([8 * (n + 1), 8 * (m + 1), *to_critic, *[8 * n] * half])
        # `backward` and `step` begin with a message each; nothing that is read may be captured.
        for name, roll_calls in (("two-phase", 2), ("capturable", 0)):
            (step,) = results[name]
            gathered = [b for call, b in step["calls"] if call in scenarios.GATHERINGS]
            assert gathered == [40] * roll_calls
        assert (
            results["capturable"][0]["num_collectives"] == 1 + results["capturable"][0]["num_hvp"]
        )
    assert len(seen) > 1, "all steps took equally many iterations: the formula is hardly tried"


def test_all_ranks_hold_the_same_bits(ranks):
    runs = of_ranks(ranks, "states")
    assert len(runs[0]) > len(SharedGame().params())
    assert_all_alike(runs)


@pytest.mark.parametrize("policy", ["fallback", "skip", "raise"])
@pytest.mark.parametrize("place", scenarios.FAULTS)
def test_nan_on_one_rank_is_met_alike_by_all(ranks, place, policy):
    runs = [results[place, policy] for results in of_ranks(ranks, "faults")]
    for name in ("after", "end"):
        assert_all_alike([run[name] for run in runs])
    moved = any(
        not torch.equal(ours, theirs)
        for ours, theirs in zip(runs[0]["before"], runs[0]["after"], strict=True)
    )
    assert moved == (place == "product" and policy == "fallback")
    assert all(tensor.isfinite().all() for tensor in runs[0]["end"])
    for run in runs:
        assert (run["raised"] is not None) == (policy == "raise")
        assert "taken" in run["report"]


def test_parameter_without_gradient_on_one_rank(ranks):
    runs = of_ranks(ranks, "missing_parameter")
    assert_all_alike(runs)
    moved = [not torch.equal(a, b) for a, b in zip(runs[0], SharedGame().params(), strict=False)]
    assert all(moved)


def test_ranks_that_begin_differently_are_told(ranks):
    results = of_ranks(ranks, "different_parameters")
    for rank, result in enumerate(results):
        other = 0 if rank == 2 else 2
        assert f"parameters of rank {rank} differ from those of rank {other}" in result["error"]
        assert "broadcast_parameters" in result["error"]
    assert_all_alike([result["end"] for result in results])


def test_the_first_rank_decides(ranks):
    """It is rank 2 of the world: what counts is the rank in the group."""
    assert of_ranks(ranks, "agreement") == [[], [], [1, 1, 1], [1, 1, 1]]


def test_steps_end_with_the_shortest_data(ranks):
    assert of_ranks(ranks, "different_lengths") == [[0, 1, 2]] * 4


def test_time_out_names_rank_and_phase(ranks):
    late = of_ranks(ranks, "late")
    assert "Rank 0 of 2 failed in the exchange of the beginning of `step(loss)`, call 1" in late[0]
    assert "No word from rank 1" in late[0]
    assert "while_all_have" in late[0]
    assert late[1:] == [None] * 3
    in_product = of_ranks(ranks, "late_in_a_product")
    assert "Rank 0 of 2 failed in the exchange of product 1, for the max" in in_product[0]
    assert "Rank 1 reports: ArithmeticError: no solution (in `step(loss)`, call 1" in in_product[0]
    assert in_product[1] == "no solution"


def test_wrapped_modules_do_no_harm_and_are_unwrapped_with_one_message(ranks):
    for result in of_ranks(ranks, "wrapped"):
        assert_all_alike(result["runs"])
        (message,) = result["warnings"]
        assert message.startswith("DistributedDataParallel was taken off Sequential")
        assert result["unwrapped"]


def test_forgotten_group_is_noticed(ranks):
    for messages in of_ranks(ranks, "without_group"):
        files = ("shared_game.py", "shared_scenarios.py", "shared_scenarios.py")
        for message, file in zip(messages, files, strict=True):
            assert message.startswith(f"{file}: One of 4 processes")
            assert "Pass `torch.distributed.group.WORLD`" in message
            assert "even if modules are wrapped in DistributedDataParallel" in message


def test_copies_keep_the_group_and_pickles_ask_for_it(ranks):
    results = of_ranks(ranks, "copies")
    for result in results:
        assert "Set `optimizer.process_group" in result["error"]
        assert_all_alike(result["runs"])
    assert_all_alike([result["runs"][0] for result in results])


def test_group_must_be_one():
    game = SharedGame()
    with pytest.raises(TypeError, match="`process_group` must be a process group"):
        ACGD(game.generator.parameters(), game.critic.parameters(), process_group="gloo")
    with pytest.raises(RuntimeError, match="init_process_group"):
        batch_weight(3)
    for bad, error in ((0, ValueError), ("25", TypeError), (float("nan"), ValueError)):
        with pytest.raises(error, match="bucket_mb"):
            Replicated("any", bucket_mb=bad)


@pytest.mark.parametrize(
    ("limit", "planned"),
    [
        (1, [range(3, 4), range(2, 3), range(1, 2), range(1)]),
        (16, [range(2, 4), range(2)]),
        (1000, [range(4)]),
    ],
)
def test_buckets_are_planned_from_the_end(limit, planned):
    assert plan_buckets([4, 1, 2, 2], 4, limit) == planned


def test_empty_tensors_are_in_a_bucket():
    assert plan_buckets([0, 3], 8, 1) == [range(1, 2), range(1)]


class Sending:
    """Stands for the operations of a group; notes how far a backward pass was at each."""

    size = 1

    def __init__(self) -> None:
        self.sent: list[tuple[list[float], bool]] = []
        self.running = True

    def sum_(self, tensor: Tensor, phase: str) -> "Sending":
        self.sent.append((tensor.tolist(), self.running))
        return self

    def wait(self) -> None:
        pass


def a_pass(params):
    return Pass(lambda: [None] * len(params), params, FlatLayout.of(params), "a test")


def test_hooks_called_by_other_threads_keep_the_backend(monkeypatch):
    seen = []
    monkeypatch.setattr(buckets, "gather", lambda *_: seen.append(backend_in_force.get()))
    param = torch.ones(1, requires_grad=True)
    with (
        use_backend("torch"),
        OverlappedSum(Sending(), a_pass([param]), torch.empty(1), 4) as running,
    ):
        thread = threading.Thread(target=running._arrive, args=(0, torch.ones(1)))
        thread.start()
        thread.join()
    assert seen == ["torch"]


def test_buckets_are_sent_while_the_pass_goes_on():
    """Later layers' gradients leave before earlier ones' are formed; unused ones at the end."""
    first, unused, last = (torch.tensor([v], requires_grad=True) for v in (2.0, 3.0, 5.0))
    group = Sending()
    last_were_sent = []
    middle = first * 1
    middle.register_hook(lambda grad: last_were_sent.append(len(group.sent)))
    out = torch.empty(3)
    params = [unused, first, last]
    with OverlappedSum(group, a_pass(params), out, 4) as running:
        grads = torch.autograd.grad((middle * last).sum(), params, allow_unused=True)
    group.running = False
    running.finish(grads)
    assert last_were_sent == [1]
    assert group.sent == [([2.0], True), ([5.0], True), ([0.0], False)]
    assert out.tolist() == [0.0, 5.0, 2.0]
    assert not first._backward_hooks


def test_an_interrupt_between_any_two_lines_leaves_no_hook():
    params = [torch.ones(1, requires_grad=True) for _ in range(3)]
    own = params[1].register_hook(lambda grad: grad)
    source, out = a_pass(params), torch.empty(3)
    with Lines() as counter:
        OverlappedSum(Sending(), source, out, 4).__enter__().release()
    for at in range(1, counter.count + 1):
        running = OverlappedSum(Sending(), source, out, 4)
        try:
            with Lines(at):
                running.__enter__()
        except Interrupted:
            pass
        running.release()
        assert [len(param._backward_hooks or {}) for param in params] == [0, 1, 0]
    own.remove()
