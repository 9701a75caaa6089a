"""Compiles the table of kernels, or one entry of each, and prints what is wrong with the code."""

import json
import sys

from benchmarks.kernels.aot import compile_entry, complaints
from benchmarks.kernels.registry import entries
from benchmarks.kernels.targets import TARGETS


def one_of_each():
    """Return an entry of every kernel, one that is timed where there is one."""
    found = {}
    for entry in sorted(entries(), key=lambda entry: entry.operation is None):
        found.setdefault(entry.kernel.__name__, entry)
    return tuple(found.values())


def main():
    found = {}
    for entry in one_of_each() if "one" in sys.argv else entries():
        for target in TARGETS.values():
            if target.name not in entry.skipped:
                code = compile_entry(entry, target)
                found[f"{entry.name} {target.name}"] = complaints(entry, target, code)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
