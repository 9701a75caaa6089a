"""A long run leaks nothing."""

import json

import pytest

from benchmarks.soak import RESULT, main, soak


def assert_flat(result, num_steps: int, slack_mb: float) -> None:
    assert sum(result["statuses"].values()) == num_steps == result["taken"]
    assert set(result["statuses"]) <= {"CONVERGED", "MAX_ITER"}
    assert result["drift"] == 0
    looks = result["looks"]
    later = looks[len(looks) // 2 :]
    assert len({look["tensors"] for look in later}) == 1
    assert later[-1]["resident_mb"] - later[0]["resident_mb"] < slack_mb


@pytest.mark.slow
def test_memory_stays_flat():
    assert_flat(soak(4000, 200), 4000, slack_mb=4)


def test_short_run_is_reported(tmp_path, monkeypatch):
    out = tmp_path / "soak.json"
    monkeypatch.setattr("sys.argv", ["soak", "--steps", "20", "--out", str(out)])
    main()
    result = json.loads(out.read_text())
    assert_flat(result, 20, slack_mb=50)
    assert len(result["looks"]) == 20


def test_stored_result_is_flat():
    result = json.loads(RESULT.read_text())
    assert_flat(result, 20_000, slack_mb=4)
