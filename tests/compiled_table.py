"""Compiles an entry of each kernel of the table, or all of it, and prints what is wrong with it."""

import itertools
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


def sample():
    """Return each kernel with one target, and so each target with some kernels."""
    cases, targets = [], itertools.cycle(TARGETS.values())
    for entry in one_of_each():
        target = next(target for target in targets if target.name not in entry.skipped)
        cases.append((entry, target))
    return cases


def main():
    everything = itertools.product(entries(), TARGETS.values())
    found = {}
    for entry, target in everything if "all" in sys.argv else sample():
        if target.name not in entry.skipped:
            code = compile_entry(entry, target)
            found[f"{entry.name} {target.name}"] = complaints(entry, target, code)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
