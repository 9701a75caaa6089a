"""Errors of autograd, each with the remedy that is named for it."""

import pytest
import torch
from autograd_errors import COMPILED, CUDNN, GRID_SAMPLE

from compopt._remedies import CAUSES, explain

ERRORS = {
    "derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not "
    "implemented": "double_backward_safe",
    "derivative for aten::_scaled_dot_product_efficient_attention_backward is not "
    "implemented": "attention part",
    CUDNN: "recurrent part",
    "derivative for aten::miopen_rnn_backward is not implemented": "recurrent part",
    GRID_SAMPLE: "torch.gather",
    COMPILED: "uncompiled module",
    "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an "
    "`inputs` parameter to .backward().": "use_reentrant=False",
    "Checkpointing is not compatible with .grad() or when an `inputs` parameter is passed to "
    ".backward().": "use_reentrant=False",
    "Expected to have finished reduction in the prior iteration before starting a new "
    "one.": ".module",
    "the derivative for 'batch_norm_backward_elemt' is not implemented.": "GroupNorm",
    "A leaf node was passed to _will_engine_execute_node but we are currently running "
    "autograd.grad(). This is currently not supported.": "Remove the hook",
    "one of the variables needed for gradient computation has been modified by an inplace "
    "operation: [torch.FloatTensor [4, 4]] is at version 1": "out-of-place",
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed).": "Do not call `backward()`",
    "element 0 of tensors does not require grad and does not have a grad_fn": "gradients enabled",
    "trying to differentiate twice a function that was marked with "
    "@once_differentiable": "without `once_differentiable`",
    "the derivative for '_cdist_backward' is not implemented.": "elementary",
    "Trying to backward through ns::op.default but no autograd formula was registered.": "element",
}


@pytest.mark.parametrize("text", ERRORS, ids=range(len(ERRORS)))
def test_errors_of_autograd_are_explained(text):
    remedy = explain(RuntimeError(text))
    assert remedy is not None
    assert ERRORS[text] in remedy


def test_each_cause_has_an_error():
    explained = {explain(RuntimeError(text)) for text in ERRORS}
    assert explained == {str(cause) for cause in CAUSES}


@pytest.mark.parametrize(
    "text", ["mat1 and mat2 shapes cannot be multiplied", "scaled_dot_product: bad shape", ""]
)
def test_other_errors_are_not_explained(text):
    assert explain(RuntimeError(text)) is None


def test_error_of_a_freed_graph_is_explained():
    x = torch.ones(2, requires_grad=True)
    loss = x.exp().sum()
    loss.backward()
    with pytest.raises(RuntimeError) as raised:
        torch.autograd.grad(loss, x)
    assert "Do not call `backward()`" in str(explain(raised.value))
