"""The two implementations of an operation, and which of them is called."""

import inspect
import pkgutil
from importlib import import_module

import pytest
import torch
from strict_interpreter import strict

from compopt import kernels
from compopt.kernels import _blocks, operations, partial_dot, use_backend
from compopt.kernels._backend import dispatch
from compopt.kernels.layer_norm import reference
from compopt.kernels.operations import layer_norm_forward, linear_tangent

FOLDERS = {found.name for found in pkgutil.iter_modules(kernels.__path__) if found.ispkg}
OPERATIONS = {
    name: operation
    for name, operation in vars(operations).items()
    if hasattr(operation, "__wrapped__")
}


def own_functions(module):
    loaded = import_module(module)
    functions = inspect.getmembers(loaded, inspect.isfunction)
    return {name for name, function in functions if function.__module__ == module}


def test_what_has_two_forms_is_chosen_between():
    for folder in FOLDERS:
        module = f"compopt.kernels.{folder}"
        both = own_functions(f"{module}.reference") & own_functions(f"{module}.triton")
        chosen = {n for n, f in OPERATIONS.items() if f.__module__ == f"{module}.reference"}
        assert chosen
        # A part of the diversity penalty, which is timed by itself.
        assert chosen == {n for n in both if n[0] != "_"} - {"gram_product"}
    assert all(name == operation.__name__ for name, operation in OPERATIONS.items())


def test_both_implementations_have_the_same_signature():
    """But for options of Triton's own, which are keywords that have a default."""
    for operation in OPERATIONS.values():
        check_signature(operation)


def check_signature(operation):
    module = operation.__module__.replace("reference", "triton")
    twin = getattr(import_module(module), operation.__name__)
    ours, theirs = (inspect.signature(function) for function in (operation, twin))
    assert ours.return_annotation == theirs.return_annotation
    own = [theirs.parameters[key] for key in theirs.parameters if key not in ours.parameters]
    shared = [theirs.parameters[key] for key in theirs.parameters if key in ours.parameters]
    assert shared == list(ours.parameters.values())
    for parameter in own:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
    assert operation.__doc__
    assert not twin.__doc__


def test_the_first_tensor_decides_whatever_it_is_called():
    """A meta tensor is one that Triton refuses: the choice was made for it."""
    refused = pytest.raises(RuntimeError, match="no kernels for tensors on meta")
    for operation in OPERATIONS.values():
        with use_backend("triton"), refused:
            operation(None, [], later=torch.ones(1, device="meta"))


def test_rows_too_long_for_a_program_go_to_torch():
    x = torch.randn(2, 16385)
    expected = reference.layer_norm_forward(x, None, None, 1, 1e-5)
    with use_backend("triton"), strict() as run:
        found = layer_norm_forward(x, None, None, num_dims=1, eps=1e-5)
    assert not run.launches
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("wide", [True, False])
def test_float64_products_go_to_torch_where_triton_has_none(monkeypatch, wide):
    monkeypatch.setattr(_blocks, "has_wide_products", lambda: wide)
    x, weight = torch.randn(2, 3).double(), torch.randn(4, 3).double()
    with use_backend("triton"), strict() as run:
        linear_tangent(x, weight, x, weight)
        assert len(run.launches) == wide
        linear_tangent(x.float(), weight.float(), x.float(), weight.float())
    assert len(run.launches) == 1 + wide


def test_an_error_of_a_kernel_is_not_hidden(monkeypatch):
    def fail(a, b):
        raise ValueError("It is wrong.")

    monkeypatch.setattr("compopt.kernels.cg.triton.partial_dot", fail)
    with use_backend("triton"), pytest.raises(ValueError, match=r"It is wrong\."):
        partial_dot(torch.ones(3), torch.ones(3))


def test_what_is_called_is_documented_as_the_reference():
    def plain(x: torch.Tensor) -> torch.Tensor:
        """Return it."""
        return x

    found = dispatch(plain)
    assert found.__doc__ == plain.__doc__
    assert inspect.signature(found) == inspect.signature(plain)
