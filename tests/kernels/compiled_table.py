"""Compiles the table of kernels, or what is timed of it, and prints what is wrong with the code."""

import json
import sys

from benchmarks.kernels.aot import compile_entry, complaints
from benchmarks.kernels.targets import TARGETS
from compopt.kernels.registry import entries


def main():
    found = {}
    for entry in entries():
        if "timed" in sys.argv and entry.operation is None:
            continue
        for target in TARGETS.values():
            if target.name not in entry.skipped:
                code = compile_entry(entry, target)
                found[f"{entry.name} {target.name}"] = complaints(entry, target, code)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
