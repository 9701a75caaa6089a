"""Lists of tensors as one vector."""

import pytest
import torch

from compopt._flat import FlatLayout


def test_round_trip_in_logical_order():
    tensors = [
        torch.arange(6.0).view(2, 3).t(),
        torch.tensor(6.0),
        torch.empty(0, 3),
        torch.arange(7.0, 23.0).view(1, 4, 2, 2).to(memory_format=torch.channels_last),
    ]
    layout = FlatLayout.of(tensors)
    vector = layout.flatten(tensors)
    expected = [0, 3, 1, 4, 2, 5, *range(6, 23)]
    assert vector.tolist() == expected
    for view, tensor in zip(layout.views(vector), tensors, strict=True):
        assert torch.equal(view, tensor)
        assert view.numel() == 0 or view.untyped_storage().data_ptr() == vector.data_ptr()


def test_missing_tensors_count_as_zeros_over_what_was_there():
    layout = FlatLayout.of([torch.ones(2), torch.ones(3)])
    out = torch.full((5,), torch.nan)
    assert layout.flatten([None, torch.ones(3)], out) is out
    assert out.tolist() == [0, 0, 1, 1, 1]
    assert layout.flatten([None, None]).tolist() == [0] * 5


def test_entries_are_scaled_while_they_are_copied():
    tensors = [torch.arange(4.0).view(2, 2).t(), None, torch.tensor(5.0)]
    layout = FlatLayout.of([torch.empty(2, 2), torch.empty(1), torch.empty(())])
    scale = torch.tensor([1.0, 10.0, 100.0, 1000.0, 7.0, 2.0])
    assert layout.flatten(tensors, scale=scale).tolist() == [0, 20, 100, 3000, 0, 10]
    assert scale.tolist() == [1, 10, 100, 1000, 7, 2]


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([torch.bfloat16], torch.float32),
        ([torch.float16, torch.float32], torch.float32),
        ([torch.float32], torch.float32),
        ([torch.bfloat16, torch.float64], torch.float64),
    ],
    ids=["bf16", "fp16-fp32", "fp32", "bf16-fp64"],
)
def test_vectors_have_at_least_single_precision(dtypes, expected):
    tensors = [torch.ones(2, dtype=dtype) for dtype in dtypes]
    layout = FlatLayout.of(tensors)
    assert layout.dtype == expected
    assert layout.flatten(tensors).dtype == expected


def test_the_vector_is_a_copy():
    tensor = torch.ones(3)
    vector = FlatLayout.of([tensor]).flatten([tensor])
    vector.zero_()
    assert tensor.tolist() == [1, 1, 1]
