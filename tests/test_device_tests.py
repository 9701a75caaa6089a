"""The tests that need a device can be collected everywhere, and skip where there is none."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = (
    *("CGDs", "torch_cgd", "PIL", "accelerate", "hypothesis", "jinja2", "lightning", "matplotlib"),
    *("omegaconf", "pooch", "pytest_benchmark", "rich", "sklearn", "tensorboard", "torchvision"),
)
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({hidden!r}))
import pytest
sys.exit(pytest.main({options!r}))
"""


def run(*options: str, hidden: tuple[str, ...] = ()) -> str:
    """Run pytest as on a machine without devices and packages; return what it prints."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""}
    # Plugins are packages as well.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    program = WITHOUT.format(hidden=hidden, options=["-q", *options])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_device_tests_need_no_optional_package_and_all_skip_with_their_reason():
    """With the packages they are imported as the other tests are collected."""
    shown = run("-m", "gpu", "-rs", hidden=OPTIONAL)
    skipped = re.findall(r"^SKIPPED \[(\d+)\].*: (.*)$", shown, re.MULTILINE)
    total = sum(int(count) for count, _ in skipped)
    assert re.search(rf"^{total} skipped", shown, re.MULTILINE), shown
    assert total >= 100
    assert {reason for _, reason in skipped} == {"There is no CUDA device here."}


def test_device_tests_need_no_triton():
    shown = run("-m", "gpu", hidden=(*OPTIONAL, "triton"))
    assert re.search(r"^\d+ skipped", shown, re.MULTILINE), shown


@pytest.mark.slow
def test_tests_of_interpreted_kernels_are_collected_where_kernels_are_compiled():
    shown = run("--collect-only", "-m", "not slow", "tests/kernels", "tests/nn")
    assert "tests/kernels/test_cg_kernels.py::" in shown


def test_what_torch_says_of_a_new_backward_thread_is_no_error():
    warnings.warn(
        "Attempting to run cuBLAS, but there was no current CUDA context! Attempting to set the "
        "primary context...",
        UserWarning,
        stacklevel=1,
    )
