"""The micro-benchmarks run: once each, at their smallest size, without a clock."""

from pathlib import Path

from forked import run_forked


def test_micro_benchmarks_run_at_their_smallest_size(tmp_path: Path) -> None:
    small = "4e4 or (10000 and not 10000000 and not 1000000) or numbers"
    output = tmp_path / "printed"
    options = ("-q", "benchmarks/micro.py", "--benchmark-disable", "-k", small)
    code = run_forked("-m", "pytest", *options, output=output)
    assert code == 0, output.read_text()
    assert "13 passed" in output.read_text()
