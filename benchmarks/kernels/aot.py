"""Compile kernels ahead of time for absent devices, and inspect the code."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.kernels.registry import Entry
from benchmarks.kernels.targets import Target

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Code:
    """Resources and instructions of a compiled kernel.

    Attributes:
        registers: registers per thread.
        spills: instructions (bytes on AMD) that move registers to memory and back.
        shared_bytes: shared memory per program.
        load_bytes: width of the widest load from global memory.
        narrow_loads: number of narrower loads from global memory.
        matrix_instruction: the first matrix instruction, or "".
        atomics: whether there are atomic operations.
    """

    registers: int
    spills: int
    shared_bytes: int
    load_bytes: int
    narrow_loads: int
    matrix_instruction: str
    atomics: bool


def compile_entry(entry: Entry, target: Target) -> Code:
    """Compile ``entry`` for ``target`` and inspect the code.

    Raises:
        Exception: any error that Triton raises while compiling.
    """
    names = entry.kernel.arg_names
    divisible = {name for name, kind in entry.signature.items() if kind.startswith("*")}
    divisible = divisible.difference(entry.unaligned).union(entry.divisible)
    compiled = triton.compile(
        ASTSource(
            fn=entry.kernel,
            signature={name: entry.signature.get(name, "constexpr") for name in names},
            constexprs=dict(entry.constexprs),
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in divisible},
        ),
        target=GPUTarget(target.backend, target.arch, target.warp_size),
        options={
            "num_warps": entry.num_warps,
            "num_stages": entry.num_stages,
            "enable_fp_fusion": True,
        },
    )
    look = _look_at_cuda if target.backend == "cuda" else _look_at_amd
    return look(compiled)


def _tool(name: str, *arguments: str) -> str:
    command = [str(TOOLS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _look_at_cuda(compiled: Any) -> Code:
    ptx = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        resources = _tool("cuobjdump", "--dump-resource-usage", file.name)
        instructions = _tool("nvdisasm", "-c", file.name)
    widths = [
        int(vector or 1) * int(bits) // 8
        for vector, bits in re.findall(r"ld\.global[.\w:]*?(?:\.v(\d))?\.[bfus](\d+)", ptx)
    ]
    # Asynchronous copies to shared memory are loads too.
    widths += [
        int(size, 16) for size in re.findall(r"cp\.async\.\w+\.shared\.global.*?, 0x(\w+),", ptx)
    ]
    matrix = re.search(r"wgmma\.mma_async[\w.:]*|mma\.sync[\w.:]*|tcgen05\.mma[\w.:]*", ptx)
    return Code(
        registers=max(map(int, re.findall(r"REG:(\d+)", resources))),
        spills=len(re.findall(r"\b(?:STL|LDL)\b", instructions)),
        shared_bytes=compiled.metadata.shared,
        load_bytes=max(widths, default=0),
        narrow_loads=sum(width < max(widths) for width in widths),
        matrix_instruction=matrix.group() if matrix else "",
        # Not the "red" of "shared.global".
        atomics=re.search(r"(?<![a-z])(?:atom|red)\.", ptx) is not None,
    )


_AMD_WIDTHS = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "ushort": 2, "ubyte": 1}


def _look_at_amd(compiled: Any) -> Code:
    code = compiled.asm["amdgcn"]
    widths = [
        _AMD_WIDTHS.get(kind, 2)
        for kind in re.findall(r"(?:global|buffer)_load_(?:lds_)?(\w+?)(?:_d16\w*)?\s", code)
    ]
    matrix = re.search(r"v_mfma_\w+|v_smfmac_\w+", code)
    return Code(
        registers=int(re.findall(r"\.vgpr_count:\s+(\d+)", code)[0]),
        spills=int(re.findall(r"\.vgpr_spill_count:\s+(\d+)", code)[0]),
        shared_bytes=compiled.metadata.shared,
        load_bytes=max(widths, default=0),
        narrow_loads=sum(width < max(widths) for width in widths),
        matrix_instruction=matrix.group() if matrix else "",
        atomics=re.search(r"(?:global|buffer)_atomic", code) is not None,
    )


def complaints(entry: Entry, target: Target, code: Code) -> list[str]:
    """Return a sentence for each defect of the code."""
    found = []
    if code.spills:
        found.append(f"spills registers ({code.spills})")
    if code.shared_bytes > target.shared_bytes:
        found.append(f"needs {code.shared_bytes} bytes of shared memory of {target.shared_bytes}")
    if code.load_bytes < entry.load_bytes:
        found.append(f"loads {code.load_bytes} bytes at once, not {entry.load_bytes}")
    if entry.matrix_unit and not code.matrix_instruction:
        found.append("uses no matrix instruction")
    if code.atomics:
        found.append("uses atomic operations, so its result depends on the order of programs")
    return [f"{entry.name} for {target.name} {what}." for what in found]
