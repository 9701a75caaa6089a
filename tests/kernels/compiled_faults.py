"""Kernels with planted faults, launched in a dry run. Prints what was recorded or raised."""

import json

import torch
import triton
import triton.language as tl

from benchmarks.kernels.aot import compile_entry, complaints
from benchmarks.kernels.dry_run import dry_run
from benchmarks.kernels.registry import Entry
from benchmarks.kernels.targets import TARGETS


@triton.jit
def copy_kernel(x_ptr, out_ptr, factor: tl.float64, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def shape_change_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    x = tl.load(x_ptr)
    if n > 3:
        x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(out_ptr + tl.arange(0, BLOCK), x)


@triton.jit
def big_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, n):
        x = tl.load(x_ptr + at + start * BLOCK * BLOCK)
        total = tl.dot(x, tl.trans(x), total)
    tl.store(out_ptr + at, total)


@triton.jit
def spilling_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    # One thread holds more numbers than it has registers until all have been summed.
    x = tl.load(x_ptr + at)
    y = tl.load(x_ptr + n + at)
    total = tl.sum(x * y)
    tl.store(out_ptr + at, x * total + y)


@triton.jit
def atomic_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out_ptr, tl.sum(tl.load(x_ptr + at, mask=at < n, other=0.0)))


def attempt(function):
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def entry(kernel, **changes):
    settings = {
        "signature": {"x_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32"},
        "constexprs": {"BLOCK": 1024},
        "divisible": ("n",),
    }
    return Entry(
        kernel.__name__,
        kernel,
        bytes_moved=float,
        torch_bytes=float,
        flops=float,
        **{**settings, **changes},
    )


def look(kernel, target="sm_90", **changes):
    at = TARGETS[target]
    one = entry(kernel, **changes)
    return complaints(one, at, compile_entry(one, at))


def main():
    x, out = torch.zeros(1 << 16), torch.zeros(1 << 16)
    found = {}
    with dry_run("sm_90") as run:
        copy_kernel[(4,)](x, out[1:], 0.1, 64, 32, num_warps=2)
        copy_kernel[(4,)](x, out, 0.1, 1, 32)
        found["launches"] = [vars(launch) for launch in run.launches]
        found["misspelt"] = attempt(lambda: copy_kernel[(1,)](x, out, 0.1, 4, 32, num_wraps=4))
        found["shape"] = attempt(lambda: shape_change_kernel[(1,)](x, out, 4, 32))
        found["shared"] = attempt(lambda: big_kernel[(1,)](x, out, 8, 128, num_stages=6))
        found["after errors"] = len(run.launches)
    copy = {"signature": {"x_ptr": "*fp32", "out_ptr": "*fp32", "factor": "fp64", "n": "i32"}}
    for target in ("sm_80", "sm_100", "gfx942"):
        found[f"right {target}"] = look(copy_kernel, target, **copy)
        found[f"unaligned {target}"] = look(copy_kernel, target, **copy, divisible=())
        found[f"no matrix {target}"] = look(copy_kernel, target, **copy, matrix_unit=True)
        found[f"atomic {target}"] = look(atomic_kernel, target)
        long = {"constexprs": {"BLOCK": 16384 if target == "gfx942" else 8192}}
        found[f"spilling {target}"] = look(spilling_kernel, target, **long, num_warps=1)
        square = {"constexprs": {"BLOCK": 128}, "load_bytes": 0}
        found[f"shared {target}"] = look(
            big_kernel, target, **square, num_stages=6, num_warps=8, matrix_unit=True
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
