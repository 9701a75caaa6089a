"""Which form of a kernel runs where."""

import subprocess
import sys

import pytest
import torch

from compopt import ACGD
from compopt.kernels import BACKENDS, _backend, partial_dot, resolve_backend, use_backend

CPU = torch.device("cpu")


def test_auto_is_torch_on_the_cpu_even_where_kernels_are_interpreted():
    assert resolve_backend("auto", CPU) == "torch"
    assert partial_dot(torch.ones(5000), torch.ones(5000)).shape == (1,)


def test_triton_is_used_on_the_cpu_where_kernels_are_interpreted():
    assert resolve_backend("triton", CPU) == "triton"
    with use_backend("triton"):
        assert partial_dot(torch.ones(5000), torch.ones(5000)).shape == (5,)
        with use_backend("torch"):
            assert partial_dot(torch.ones(5000), torch.ones(5000)).shape == (1,)
        assert partial_dot(torch.ones(5000), torch.ones(5000)).shape == (5,)
    assert partial_dot(torch.ones(5000), torch.ones(5000)).shape == (1,)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "xpu"])
def test_interpreted_kernels_never_get_tensors_of_a_device(device):
    device = torch.device(device)
    assert resolve_backend("auto", device) == "torch"
    with pytest.raises(RuntimeError, match="without TRITON_INTERPRET=1 or use backend"):
        resolve_backend("triton", device)


def test_auto_is_triton_for_cuda_tensors_where_it_can_be_had(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(_backend, "_interprets", lambda: False)
    assert resolve_backend("auto", cuda) == resolve_backend("triton", cuda) == "triton"
    assert resolve_backend("auto", CPU) == "torch"
    monkeypatch.setattr(_backend, "why_no_triton", lambda: "Triton is not there. Get it")
    assert resolve_backend("auto", cuda) == "torch"
    with pytest.raises(RuntimeError, match=r"requested, but Triton is not there\. Get it or use"):
        resolve_backend("triton", cuda)


def test_triton_on_the_meta_device_is_refused():
    with (
        pytest.raises(RuntimeError, match="no kernels for tensors on meta"),
        use_backend("triton"),
    ):
        partial_dot(torch.ones(5, device="meta"), torch.ones(5, device="meta"))


@pytest.mark.parametrize("name", ["cuda", "", None])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="`backend` must be one of auto, torch, triton"):
        resolve_backend(name)
    with pytest.raises(ValueError, match="`backend` must be one of"), use_backend(name):
        pass


def test_an_optimizer_puts_its_backend_in_force_for_its_steps_only():
    x, y = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    for backend in BACKENDS:
        optimizer = ACGD([x], [y], backend=backend)
        seen = []

        def loss(seen=seen):
            seen.append(_backend.backend_in_force.get())
            return (x * y).sum()

        # A test that interrupts a step in what ends it may have left another one.
        with use_backend("auto"):
            optimizer.step(loss)
            # On the CPU the best there is are those of torch.
            assert seen == ["torch" if backend == "auto" else backend]
            assert _backend.backend_in_force.get() == "auto"


OLD_TRITON = """
import triton
triton.__version__ = "3.1.0"
"""
HIDDEN_TRITON = """
import sys
sys.modules["triton"] = None
"""
STEP = """
import torch, compopt
assert not torch.cuda.is_initialized()
x, y = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
compopt.ACGD([x], [y]).step((x * y).sum())
assert x.any()
try:
    compopt.ACGD([x], [y], backend="triton")
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("hide", "message"),
    [
        (HIDDEN_TRITON, "Triton cannot be imported. Install compopt[triton]"),
        pytest.param(
            OLD_TRITON,
            "Triton 3.1.0 is not supported. Install 3.2 or newer",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["hidden", "old"],
)
def test_everything_but_triton_works_without_it(hide, message):
    command = [sys.executable, "-c", hide + STEP]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = f'The backend "triton" was requested, but {message} or use backend="torch".'
    assert done.stdout.strip() == expected
