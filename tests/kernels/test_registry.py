"""That no kernel lacks what every kernel owes, and what each of them writes to."""

import ast
from pathlib import Path

import pytest
import torch
from kernel_checks import fill_new_memory_with_nan, shapes_of, vector
from layer_cases import CASES
from strict_interpreter import strict

from benchmarks.kernels.registry import entries
from compopt.kernels import (
    CGState,
    adaptive_setup_,
    average_squares_,
    cg_direction_,
    cg_scalars_,
    cg_update_,
    gather,
    partial_dot,
    scatter,
    use_backend,
)

ROOT = Path(__file__).resolve().parent.parent.parent
ENTRIES = entries()
NAMES = sorted({entry.kernel.__name__ for entry in ENTRIES})

WRITES = {
    "adaptive_setup_kernel": {"step_ptr", "root_ptr", "scaled_ptr"},
    "average_squares_kernel": {"average_ptr"},
    "bias_act_kernel": {"out_ptr"},
    "cg_direction_kernel": {"p_ptr"},
    "cg_scalars_kernel": {"state_ptr"},
    "cg_update_kernel": {"x_ptr", "y_ptr", "r_ptr", "partial_ptr"},
    "channel_sums_kernel": {"partial_ptr"},
    "derivative_kernel": {"out_ptr", "first_ptr", "second_ptr"},
    "gather_kernel": {"out_ptr", "partial_ptr"},
    "gram_product_kernel": {"out_ptr", "partial_ptr"},
    "gram_strip_kernel": {"strip_ptr", "partial_ptr"},
    "layer_norm_kernel": {
        *("out_ptr", "mean_ptr", "invstd_ptr", "projected_ptr"),
        *("weight_part_ptr", "bias_part_ptr"),
    },
    "linear_tangent_kernel": {"out_ptr"},
    "normalize_kernel": {
        *("y_ptr", "mean_ptr", "invstd_ptr", "running_mean_ptr", "running_var_ptr"),
    },
    "partial_dot_kernel": {"partial_ptr"},
    "scatter_kernel": {"storage_ptr"},
}
"""Arguments that a kernel may write to: never a tensor that its caller was given to read."""


def decorated(decorator):
    """Return the functions of the folder with a decorator, called or not."""
    return {
        node.name
        for path in (ROOT / "kernels").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(found).split("(")[0] == decorator for found in node.decorator_list)
    }


def test_every_kernel_is_in_the_table():
    assert decorated("kernel") == set(NAMES) == set(WRITES)


def test_what_is_launched_is_made_to_be_launched_on_the_device_of_its_tensors():
    """Only helpers are made by Triton's own decorator."""
    assert not [name for name in decorated("triton.jit") if name.endswith("_kernel")]


def test_every_kernel_is_explained_with_its_bytes():
    paragraphs = (ROOT / "kernels" / "README.md").read_text().split("\n")
    for name in NAMES:
        rows = [line for line in paragraphs if line.startswith("|") and f"`{name}`" in line]
        assert len(rows) == 1, f"kernels/README.md must have one row that begins with {name}"
        assert any(character.isdigit() for character in rows[0].split("|")[3]), name


def operations_of(name):
    """Return the names of entries that time a kernel, alone or as a part of an operation."""
    timed = [entry for entry in ENTRIES if entry.operation is not None]
    return [entry.name for entry in timed if entry.kernel.__name__ == name]


def test_every_kernel_is_timed():
    # Sums are timed with what they are made for.
    assert [name for name in NAMES if not operations_of(name)] == ["channel_sums_kernel"]


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e.operation is not None], ids=lambda entry: entry.name
)
def test_what_is_timed_runs_in_both_forms(entry):
    """On small arguments, with equal results."""
    operation = entry.operation
    results = []
    for function in (operation.launcher, operation.reference):
        torch.manual_seed(0)
        inputs = operation.inputs(48, torch.device("cpu"))
        found = function(*inputs)
        tensors = found if isinstance(found, tuple | list) else [found]
        # How partial sums are cut is up to the form, and so is the room that `scatter` is offered.
        kinds = {
            "partial_dot": [total(tensors[0])],
            "gather": [total(tensors[0]), *inputs[2:3]],
            "cg_update": [total(tensors[0]), *inputs[:3]],
            "scatter": tensors,
        }
        outputs = kinds.get(entry.name.split()[0], [*tensors, *inputs])
        results.append([t for t in outputs if isinstance(t, torch.Tensor)])
    assert results[0]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=1e-3, atol=1e-3)


def total(partials):
    return partials.double().sum() if isinstance(partials, torch.Tensor) else None


def run_vector_kernels():
    n = 2000
    x, r, p, q, y, t = (vector(n, torch.float32) for _ in range(6))
    state = CGState(torch.tensor(2.0))
    curvature = partial_dot(p, p)
    square = cg_update_(x, y, r, p, t, q, curvature, state, p)
    cg_scalars_(state, curvature, square)
    cg_direction_(p, r, state)
    average, grad, *outputs = (vector(n, torch.float32).square() for _ in range(5))
    rate = torch.tensor(0.1)
    adaptive_setup_(average, grad, 0.9, rate, 1e-5, *outputs, num_steps=torch.tensor(3.0))
    average_squares_(average, grad, 0.9, torch.tensor(True))
    (tensor,) = scatter(x, [torch.Size([n])], [torch.float32], r)
    return tensor


@pytest.fixture(scope="module")
def written():
    """What each kernel writes to, over all cases."""
    found = {}
    with pytest.MonkeyPatch.context() as patch, use_backend("triton"):
        fill_new_memory_with_nan(patch)
        with strict() as run:
            tensor = run_vector_kernels()
        out, scale, base = (vector(2000, torch.float32) for _ in range(3))
        with strict(also={"tensors": [tensor]}) as also:
            gather([tensor], shapes_of([tensor], [2000]), out, scale, base)
        runs = [run, also]
        for case in CASES.values():
            with strict() as run:
                case.results(case.form, case.inputs(case.shape(126), torch.float32))
            runs.append(run)
        norms = CASES["batch norm rows"].form
        with strict() as run:
            norms.batch_norm_forward(
                torch.randn(4, 3), None, None, torch.zeros(3), torch.ones(3), 0.1, 1e-5
            )
        runs.append(run)
    for run in runs:
        for name, arguments in run.written.items():
            found.setdefault(name, set()).update(arguments)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_writes_to_its_outputs_alone(written, name):
    assert written[name] == WRITES[name]
