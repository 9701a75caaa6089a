"""Kernels are checked on a device by operations that launch them, and what is wrong is named."""

from dataclasses import replace

import pytest
import torch

from benchmarks.kernels.checks import dtype_of, error, operation_of
from benchmarks.kernels.registry import entries
from benchmarks.kernels.timing import failure_of


def test_every_entry_of_the_table_has_an_operation_to_be_checked_by():
    for entry in entries():
        check_operation(entry)


def check_operation(entry):
    operation = operation_of(entry)
    widths = {"*fp64": torch.float64, "*bf16": torch.bfloat16, "*fp16": torch.float16}
    named = {widths[kind] for kind in entry.signature.values() if kind in widths}
    is_list = entry.name.startswith(("gather", "scatter"))
    assert dtype_of(entry) in (named or {torch.float32}) or is_list
    assert callable(operation.launcher)
    if entry.constexprs.get("PRECISION") in ("tf32", "tf32x3"):
        assert operation.launcher.keywords == {"precision": entry.constexprs["PRECISION"]}


ONE_EACH = {entry.kernel.__name__: entry for entry in reversed(entries()) if entry.operation}


@pytest.mark.parametrize("name", ["cg_update_kernel", "scatter_kernel", "cg_scalars_kernel"])
def test_a_check_passes_right_kernels_and_names_what_is_wrong(name):
    entry, cpu = ONE_EACH[name], torch.device("cpu")
    assert error(entry, 100, cpu) is None
    launcher = entry.operation.launcher

    def wrong(*args):
        result = launcher(*args)
        changed = args[0].values if name == "cg_scalars_kernel" else (result or args)[0]
        changed.view(-1)[0].add_(1e-2)
        return result

    def with_launcher(form):
        return replace(entry, operation=replace(entry.operation, launcher=form))

    assert "is off by" in error(with_launcher(wrong), 100, cpu)
    assert failure_of(with_launcher(None), 100, cpu).startswith("TypeError")
