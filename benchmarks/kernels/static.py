"""The table of compiled kernels, and their times in a roofline model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton

from benchmarks.harness import markdown_table
from benchmarks.kernels.aot import compile_entry
from benchmarks.kernels.registry import Entry, entries
from benchmarks.kernels.targets import ROOFLINES, TARGETS

MODEL = (
    "The times are a model, not a measurement: the larger of bytes over the published memory "
    "bandwidth and operations over the published arithmetic rate."
)


def compiled_table(words: Sequence[str] = ()) -> dict[str, Any]:
    """Compile entries for all targets; return resources of the code and modelled times.

    Args:
        words: compile only entries whose name contains one of them; all if empty.
    """
    rows = []
    for entry in entries():
        if words and not any(word in entry.name for word in words):
            continue
        row = _declared(entry)
        for target in TARGETS.values():
            if target.name in entry.skipped:
                row["targets"][target.name] = {"skipped": entry.skipped[target.name]}
            else:
                row["targets"][target.name] = vars(compile_entry(entry, target))
        rows.append(row)
    return {"triton": triton.__version__, "model": MODEL, "kernels": rows}


def _declared(entry: Entry) -> dict[str, Any]:
    size = entry.size
    bytes_moved, flops = entry.bytes_moved(size), entry.flops(size)
    return {
        "name": entry.name,
        "size": size,
        "size_means": entry.size_means,
        "bytes": bytes_moved,
        "torch_bytes": entry.torch_bytes(size),
        "flops": flops,
        "model_us": {
            device.name: 1e6 * device.seconds(bytes_moved, flops, matrix_unit=entry.matrix_unit)
            for device in ROOFLINES
            if device.target not in entry.skipped
        },
        "torch_model_us": {
            device.name: 1e6
            * device.seconds(entry.torch_bytes(size), flops, matrix_unit=entry.matrix_unit)
            for device in ROOFLINES
        },
        "targets": {},
    }


def as_markdown(table: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    targets, devices = list(TARGETS), [device.name for device in ROOFLINES]
    codes = (
        [row["name"], *(_code_cell(row["targets"][target]) for target in targets)]
        for row in table["kernels"]
    )
    heads = [f"{device}, model us (torch)" for device in devices]
    models = (
        [
            row["name"],
            f"{row['size']} {row['size_means']}",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['torch_bytes'] / 1e6:.1f}",
            *(
                f"{row['model_us'][device]:.1f} ({row['torch_model_us'][device]:.1f})"
                if device in row["model_us"]
                else "-"
                for device in devices
            ),
        ]
        for row in table["kernels"]
    )
    lines = [
        "# Compiled kernels",
        "",
        f"Made by `python -m benchmarks.kernels --static` with Triton {table['triton']}; nothing "
        "here ran on a device.",
        "",
        "Registers of a thread / spills / shared bytes of a program / widest load from global "
        "memory in bytes, then the matrix instruction if there is one.",
        "",
        markdown_table(["kernel", *targets], codes),
        "",
        f'{MODEL} Launches and caches are left out. "torch" is the sequence of plain torch '
        "operations, without fusion.",
        "",
        markdown_table(["kernel", "size", "MB", "torch MB", *heads], models),
    ]
    return "\n".join(lines) + "\n"


def _code_cell(code: dict[str, Any]) -> str:
    if "skipped" in code:
        return str(code["skipped"])
    figures = (code[key] for key in ("registers", "spills", "shared_bytes", "load_bytes"))
    return " ".join(["/".join(map(str, figures)), code["matrix_instruction"]]).strip()


def write(folder: Path) -> str:
    """Compile all entries, write data and text to ``folder``, and return the text."""
    table = compiled_table()
    text = as_markdown(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernels_static.json").write_text(json.dumps(table, indent=1) + "\n")
    (folder / "kernels_static.md").write_text(text)
    return text
