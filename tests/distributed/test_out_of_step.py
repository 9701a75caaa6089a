"""Ranks that differ, skip steps, go on after errors or die: all are told, and nobody hangs."""

import pytest
import shared_differences as differences
import shared_trouble as trouble
import torch
from odd_rank import ODD, SHORT_S
from ranks import run_ranks
from shared_runs import assert_all_alike, of_ranks

from compopt.derivatives import Derivatives
from compopt.distributed.record import PATIENCE_S

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(
        [*differences.DIFFERENCES, *trouble.TROUBLE],
        3,
        tmp_path_factory.mktemp("ranks"),
        timeout_s=TIMEOUT_S,
        killed=[ODD],
    )


def assert_told_at_once(results, kind, *words):
    """All ranks must raise one kind of error, long before the time-out."""
    for result in results:
        assert result["kind"] == kind, result
        assert result["seconds"] < TIMEOUT_S / 3
        for word in words:
            assert word in result["text"]


@pytest.mark.parametrize(
    ("placement", "change"),
    [
        *(("replicated", change) for change in differences.PARAMETERS),
        ("sharded", differences.one_ulp),
    ],
)
def test_differing_parameters(ranks, placement, change):
    results = [r[placement, change.__name__] for r in of_ranks(ranks, "differing_parameters")]
    assert_told_at_once(results, "ValueError", "parameters of rank", "broadcast_parameters(G, D)")
    assert all(result["untouched"] for result in results)
    assert_all_alike([result["end"] for result in results])


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("key", differences.HYPERPARAMETERS)
def test_differing_hyperparameters(ranks, key, is_late):
    results = [r[key, is_late] for r in of_ranks(ranks, "differing_hyperparameters")]
    assert_told_at_once(results, "ValueError", f"`{key}` of group 0 (min): ", "on all ranks")
    assert f"{differences.HYPERPARAMETERS[key]} here" in results[ODD]["text"]
    for rank in (0, 2):
        said = f"{differences.HYPERPARAMETERS[key]} on rank {ODD}"
        assert said in results[rank]["text"]
    assert_all_alike([result["end"] for result in results])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("max_iter", "max_iter=7"),
        ("rtol", "rtol=0.0001"),
        ("solver", "GMRES("),
        ("on_failure", "'skip'"),
        ("solve_for", "`solve_for`: "),
        ("tensor lr", "0.02"),
        ("buckets", "`process_group`"),
        ("dtype", "torch.float32"),
        ("pair", "torch.float64, torch.float64"),
        ("scale", "scale of the loss: "),
        ("players", "`player`: "),
        ("one and both", "`player`: "),
        ("players' optimizers", "optimizer of group 0"),
    ],
)
def test_differing_settings(ranks, name, words):
    results = [result[name] for result in of_ranks(ranks, "differing_settings")]
    assert_told_at_once(results, "ValueError", "would take different steps", words)


@pytest.mark.parametrize("what", ["moments", "step", "delta"])
def test_differing_states_that_were_loaded(ranks, what):
    results = [result[what] for result in of_ranks(ranks, "differing_state")]
    assert_told_at_once(results, "ValueError", "optimizer's state on rank", "same checkpoint")
    assert_all_alike([result["end"] for result in results])


def test_state_loaded_on_one_rank_only(ranks):
    results = [result["one rank only"] for result in of_ranks(ranks, "differing_state")]
    assert_told_at_once(results, "CollectiveError", "call 1 of", "call 2 of", "load_state_dict")
    assert_all_alike([result["end"] for result in results])


def test_states_that_rightly_differ(ranks):
    assert {result["alike"]["text"] for result in of_ranks(ranks, "differing_state")} == {"None"}
    assert_all_alike(of_ranks(ranks, "moments_of_shards"))
    assert_all_alike(of_ranks(ranks, "state_made_by_one_rank"))


def test_every_optimizer_is_compared(ranks):
    assert_told_at_once(of_ranks(ranks, "second_optimizer"), "ValueError", "parameters of rank")


@pytest.mark.parametrize("is_late", [False, True])
def test_parameter_frozen_on_one_rank(ranks, is_late):
    results = [result[is_late] for result in of_ranks(ranks, "freezing")]
    assert_told_at_once(results, "ValueError", "parameter 3: ", "frozen, (2,)", "trained, (2,)")
    assert_all_alike([result["end"] for result in results])


@pytest.mark.parametrize("name", ["loss", "closure"])
def test_rank_that_goes_on_after_an_error(ranks, name):
    results = [result[name] for result in of_ranks(ranks, "error_before")]
    assert results[ODD]["own"]["kind"] in ("ValueError", "RuntimeError")
    for attempt in ("result", "again"):
        told = [result[attempt] for result in results]
        assert_told_at_once(told, "CollectiveError", "not at the same place")
    assert "call 3 of" in results[ODD]["result"]["text"]
    # What the message says to do.
    assert_all_alike([result["end"] for result in results])


def test_skipped_step_is_noticed_at_the_next_batch(ranks):
    results = of_ranks(ranks, "skipped_step")
    assert_told_at_once(results, "CollectiveError", "`while_all_have`, batch 2", "`step(loss)`")
    assert [result["taken"] for result in results] == [1] * 3


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("prepared step", "CollectiveError", ["`step()` after `backward`", "`step(loss)`"]),
        ("backward", "CollectiveError", ["`backward(loss)`", "`step(loss)`"]),
        ("batch", "CollectiveError", ["`while_all_have`, batch 0", "`while_all_have`, batch 1"]),
        ("weight", "CollectiveError", ["`batch_weight`", "`step(loss)`"]),
        ("copies", "ValueError", ["differ in number, shape or dtype"]),
        ("copy", "CollectiveError", ["`broadcast_parameters`", "`step(loss)`"]),
    ],
)
def test_different_calls(ranks, name, kind, words):
    results = [result[name] for result in of_ranks(ranks, "skipped_parts")]
    assert_told_at_once(results, kind, *words)


def assert_told_in_time(result):
    assert result["kind"] == "CollectiveError", result
    # Notes of the others are waited for; the rest is what a busy machine may need.
    assert result["seconds"] < SHORT_S + PATIENCE_S + 10


def test_error_in_the_middle_is_the_end(ranks):
    results = of_ranks(ranks, "error_in_the_middle")
    assert results[ODD]["first"]["kind"] == "ArithmeticError"
    for rank in (0, 2):
        assert_told_in_time(results[rank]["first"])
        said = f"Rank {ODD} reports: ArithmeticError: no solution (in `step(loss)`, call 1"
        assert said in results[rank]["first"]["text"]
    for result in results:
        for later in result["later"]:
            assert later["kind"] == "CollectiveError"
            assert "has left its process group" in later["text"]
        assert result["seconds"] < 2.0
    # What the message says to do.
    assert_all_alike([result["end"] for result in results])


def test_rank_whose_loop_ended_is_named(ranks):
    results = of_ranks(ranks, "missing_step")
    for rank in (0, 2):
        assert_told_in_time(results[rank]["result"])
        text = results[rank]["result"]["text"]
        assert f"Rank {2 - rank} reports: waited in vain for the beginning of" in text
        assert f"No word from rank {ODD}: dead, done with its loop" in text


def test_rank_whose_data_fail_is_named(ranks):
    results = of_ranks(ranks, "bad_sample")
    assert results[ODD]["kind"] == "ValueError"
    for rank in (0, 2):
        assert_told_in_time(results[rank])
        said = f"Rank {ODD} reports: ValueError: bad sample (before an exchange)"
        assert said in results[rank]["text"]


def test_destroyed_group_is_called_so(ranks):
    results = of_ranks(ranks, "destroyed")
    for result in results:
        for attempt in (*result["part"], *result["all"]):
            assert attempt["kind"] == "CollectiveError"
            assert "was destroyed" in attempt["text"]
            assert attempt["seconds"] < 2.0
    assert_all_alike([result["end"] for result in results])


def test_killed_rank_is_named(ranks):
    assert "killed" not in ranks[ODD]
    for rank in (0, 2):
        result = ranks[rank]["killed"]
        assert_told_in_time(result)
        assert f"No word from rank {ODD}: dead" in result["text"]


def test_field_of_gradients_is_that_of_all_data(ranks):
    public = {name for name in vars(Derivatives) if not name.startswith("_")}
    local = {"independent", "of_loss", "use_coordinates"}
    for result in of_ranks(ranks, "field_of_means"):
        assert set(result) == (public - local) | {"grads"}
        for shared, alone in result.values():
            torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-14)
