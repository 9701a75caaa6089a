"""The breakdown of a step by phases adds up, and counts what is known."""

import json

import pytest
import torch
from torch.profiler import record_function

from benchmarks import profile
from benchmarks.phases import LOSS, Counting, Interval, Peak, Phase, Share, Timeline, attribute

SOLVE = Interval("compopt::solve", 20, 60)
INTERVALS = [
    Interval(LOSS, 0, 10),
    SOLVE,
    Interval("compopt::product", 25, 35),
    Interval("compopt::product", 40, 50),
    Interval("of somebody else", 5, 80),
]


@pytest.mark.parametrize(
    ("moment", "phase"),
    [
        (5, Phase.LOSS),
        (15, Phase.REST),
        (22, Phase.VECTORS),
        (30, Phase.PRODUCTS),
        (37, Phase.VECTORS),
        (45, Phase.PRODUCTS),
        (55, Phase.VECTORS),
        (70, Phase.REST),
    ],
)
def test_a_moment_belongs_to_the_innermost_range(moment, phase) -> None:
    assert Timeline(INTERVALS).phase(moment) is phase


def test_durations_add_up() -> None:
    durations = Timeline(INTERVALS).durations(-5, 70)
    assert durations[Phase.LOSS] == 10
    assert durations[Phase.PRODUCTS] == 20
    assert durations[Phase.VECTORS] == 20
    assert durations[Phase.REST] == 25
    assert sum(durations.values()) == 75


def event(category, name, start, end, correlation=None):
    """Return what a trace holds."""
    args = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": end - start, "args": args}


def test_a_kernel_counts_for_the_phase_of_its_launch() -> None:
    events = [
        event("user_annotation", "step", 0, 100),
        event("user_annotation", "compopt::gradients", 10, 30),
        # Autograd's own thread launches while the host waits.
        event("cpu_op", "aten::mm", 20, 22),
        event("cuda_runtime", "cudaLaunchKernel", 20, 21, 1),
        event("kernel", "gemm", 600, 5600, 1),
        # Triton launches outside of any operator.
        event("cuda_driver", "cuLaunchKernelEx", 25, 26, 2),
        event("kernel", "gather_kernel", 6000, 13000, 2),
        event("cuda_runtime", "cudaMemcpyAsync", 50, 51, 3),
        event("gpu_memcpy", "Memcpy DtoH", 14000, 15000, 3),
        # The device shows ranges as well.
        event("gpu_user_annotation", "compopt::gradients", 500, 900),
        {"ph": "i", "name": "a moment", "ts": 3},
    ]
    shares = {phase: Share() for phase in Phase}
    attribute(events, "step", shares, steps=2)
    assert shares[Phase.GRADIENTS].launches == 1
    assert shares[Phase.GRADIENTS].device_ms == 6
    assert shares[Phase.GRADIENTS].host_ms == 0.01
    assert shares[Phase.REST].launches == 0.5
    assert shares[Phase.REST].host_ms == 0.04


def test_bytes_and_arithmetic_are_counted_by_phase() -> None:
    shares = {phase: Share() for phase in Phase}
    left, right = torch.ones(10, 20), torch.ones(20, 30)
    with Counting(shares, Peak(bandwidth=1e9, rate=1e9, convolution_rate=1e12)):
        with record_function("compopt::product"):
            left @ right
        with record_function("compopt::set_up"):
            torch.empty(1000)
            left.t()
            left.mul_(2.0)
    product, set_up = shares[Phase.PRODUCTS], shares[Phase.SET_UP]
    assert product.gigaflops == pytest.approx(2 * 10 * 20 * 30 / 1e9)
    assert product.gigabytes == pytest.approx(4 * (200 + 600 + 300) / 1e9)
    assert product.roofline_ms == pytest.approx(1e3 * 12000 / 1e9)
    assert product.allocated_mb == pytest.approx(4 * 300 / 1e6)
    # What is allocated and not written is not moved; a view is nothing.
    assert set_up.operations == 2
    assert set_up.gigabytes == pytest.approx(2 * 4 * 200 / 1e9)
    assert set_up.allocated_mb == pytest.approx(4 * 1000 / 1e6)


def test_convolutions_have_a_roof_of_their_own() -> None:
    shares = {phase: Share() for phase in Phase}
    images, weight = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    with Counting(shares, Peak(bandwidth=1e15, rate=1.0, convolution_rate=1e6)):
        torch.nn.functional.conv2d(images, weight)
    assert shares[Phase.REST].roofline_ms == pytest.approx(shares[Phase.REST].gigaflops * 1e6)


def test_the_command_writes_a_table_a_plot_and_traces(tmp_path, capsys) -> None:
    options = ["--workload", "poisson", "--batch-size", "8", "--steps", "1"]
    folders = ["--out", str(tmp_path), "--traces", str(tmp_path / "traces")]
    rows = profile.main([*options, *folders, "--optimizer", "adam", "compopt-one"])
    phases = rows["compopt-one"]["phases"]
    for phase in Phase:
        assert phases[phase.value]["host_ms"] > 0, phase
    assert phases["mixed products"]["gigaflops"] > phases["first-order gradients"]["gigaflops"] / 2
    assert rows["adam"]["phases"]["mixed products"]["operations"] == 0
    assert rows["adam"]["phases"]["update"]["operations"] > 0
    assert json.loads((tmp_path / "poisson_cpu.json").read_text())["rows"] == rows
    assert (tmp_path / "poisson_cpu.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "traces" / "poisson_cpu_adam.json.gz").stat().st_size > 1000
    assert "mixed products" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        profile.main(["--device", "cuda"])
    assert "needs a GPU" in capsys.readouterr().err
