"""Faults of compiled steps that tests must notice, for `plant_faults.py`."""

from faults import Fault

COMPILED = "compopt/compiled/"
TESTS = "tests/compiled/"

COMPILED_FAULTS = (
    Fault(
        "a program keeps the rates that it was traced with",
        COMPILED + "twin.py",
        '"lr": rate}',
        '"lr": group["lr"]}',
        (TESTS + "test_state.py",),
    ),
    Fault(
        "a program serves networks in another mode",
        COMPILED + "terms.py",
        "(bound.are_training(), _kinds(",
        "(_kinds(",
        (TESTS + "test_state.py",),
    ),
    Fault(
        "a program leaves statistics where they were",
        COMPILED + "program.py",
        'if any("batch_norm" in str(use.target) for use in _uses(given[place])):',
        "if False:",
        (TESTS + "test_steps.py",),
    ),
    Fault(
        "buffers that are assigned anew stay",
        COMPILED + "program.py",
        "if replaced[name] is not old or old._version:",
        "if old._version:",
        (TESTS + "test_failures.py",),
    ),
    Fault(
        "a program takes a step that is not finite",
        COMPILED + "program_step.py",
        "        if not is_moved:\n            return\n",
        "",
        (TESTS + "test_failures.py",),
    ),
    Fault(
        "compiled steps are not counted",
        COMPILED + "program_step.py",
        "own.stage_counts(commit, True)",
        "pass",
        (TESTS + "test_state.py",),
    ),
    Fault(
        "a program uses tensors of its own",
        COMPILED + "program.py",
        'tracing_mode="fake")',
        'tracing_mode="fake", _allow_non_fake_inputs=True)',
        (TESTS + "test_refusals.py",),
    ),
    Fault(
        "a joined gradient lacks its penalty",
        COMPILED + "twin.py",
        "added=None if added is None else joined(added),",
        "",
        (TESTS + "test_steps.py",),
    ),
    Fault(
        "a graph works on memory that is the optimizer's no more",
        COMPILED + "graph.py",
        "if terms != self._terms or not self._are_where_they_were():",
        "if terms != self._terms:",
        (TESTS + "test_graphs.py",),
    ),
    Fault(
        "a graph replays on the inputs of its capture",
        COMPILED + "graph.py",
        "torch._foreach_copy_(self._inputs, tensors)",
        "pass",
        (TESTS + "test_graphs.py",),
    ),
)
