"""Gathering and scattering lists of tensors, interpreted strictly, against float64."""

import pytest
import torch
from kernel_checks import ORDERS, SIZES, assert_accurate, nan_empty, shapes_of, vector
from strict_interpreter import ViolationError, strict

from compopt.kernels import gather, scatter, use_backend
from compopt.kernels.lists.tables import ALIGNED, CONTIGUOUS, STRIDED, collapse, row


@pytest.fixture(autouse=True)
def _unwritten_memory(monkeypatch):
    monkeypatch.setattr(torch, "empty", nan_empty)


@pytest.fixture(autouse=True)
def _triton():
    with use_backend("triton"):
        yield


def layouts(dtype):
    """Return lists of tensors of all sorts of strides."""
    image = vector(2 * 3 * 5 * 4, dtype).view(2, 3, 5, 4)
    wide = vector(40 * 50, dtype).view(40, 50)
    return {
        "contiguous": [vector(64, dtype).view(8, 8), vector(1000, dtype), vector(16, dtype)],
        "odd sizes": [
            vector(1, dtype),
            vector(1025, dtype),
            vector(63, dtype),
            vector(2048, dtype),
        ],
        "channels last": [image.to(memory_format=torch.channels_last), vector(9, dtype)],
        "transposed": [wide.T, wide[:, 3:7], wide[::2, ::3], wide[5]],
        "expanded": [vector(7, dtype)[:, None].expand(7, 300), vector(1, dtype).expand(30)],
        "five dimensions": [vector(96, dtype).view(2, 2, 2, 3, 4).permute(4, 2, 0, 3, 1)],
        "unaligned": [vector(3001, dtype)[1:], vector(5, dtype)],
        "numbers": [vector(1, dtype)[0], vector(1, dtype)[0]],
        "missing": [None, vector(1500, dtype), None, vector(3, dtype)],
        "all missing": [None, None],
        "empty": [vector(0, dtype), vector(5, dtype), vector(0, dtype).view(0, 3)],
        "nothing": [],
    }


MISSING_SIZE = 1030


def sizes_of(tensors):
    return [MISSING_SIZE if tensor is None else tensor.numel() for tensor in tensors]


def flat(tensors, sizes):
    pieces = [
        torch.zeros(size) if tensor is None else tensor.reshape(-1)
        for tensor, size in zip(tensors, sizes, strict=True)
    ]
    return torch.cat([piece.double() for piece in pieces] or [torch.zeros(0).double()])


@pytest.mark.parametrize(
    ("layout", "form", "dtype"),
    [
        *(
            (layout, form, torch.float32)
            for layout in layouts(torch.float32)
            for form in ("copy", "product")
        ),
        *(
            (layout, "product", dtype)
            for layout in ("odd sizes", "transposed")
            for dtype in (torch.float64, torch.float16, torch.bfloat16)
        ),
    ],
    ids=str,
)
def test_gather(layout, form, dtype):
    flat_dtype = torch.promote_types(dtype, torch.float32)
    tensors = layouts(dtype)[layout]
    sizes = sizes_of(tensors)
    n = sum(sizes)
    out = torch.empty(n, dtype=flat_dtype)
    scale = None if form == "copy" else vector(n, flat_dtype)
    base = vector(n, flat_dtype) if form == "product" else None
    truth = flat(tensors, sizes)
    if scale is not None:
        truth = truth * scale.double()
    if base is not None:
        truth = truth + base.double()
    with strict(also={"tensors": [t for t in tensors if t is not None]}) as run:
        # A tensor of too many dimensions is copied, which strict does not know of.
        if layout == "five dimensions":
            with pytest.raises(ViolationError):
                gather(tensors, shapes_of(tensors, sizes), out, scale, base)
            return
        partials = gather(tensors, shapes_of(tensors, sizes), out, scale, base)
    assert len(run.launches) == (1 if n else 0)
    assert_accurate(out, truth, rtol=0.0 if form == "copy" else None)
    if base is not None:
        error = abs(float(partials.double().sum()) - float(truth @ base.double()))
        allowed = 1e-14 if flat_dtype == torch.float64 else 1e-6
        assert error <= allowed * float(truth.norm() * base.double().norm())


def test_gather_copies_what_has_too_many_dimensions():
    tensors = layouts(torch.float32)["five dimensions"]
    out = torch.empty(96)
    gather(tensors, shapes_of(tensors, [96]), out)
    assert torch.equal(out, tensors[0].reshape(-1))


@pytest.mark.parametrize("n", SIZES)
def test_gather_of_one_tensor_of_any_size(n):
    tensor, out, scale, base = (vector(n, torch.float32) for _ in range(4))
    truth = base.double() + scale.double() * tensor.double()
    with strict(also={"tensors": [tensor]}):
        gather([tensor], shapes_of([tensor], [n]), out, scale, base)
    assert_accurate(out, truth)


def test_gather_of_mixed_dtypes_takes_one_launch_for_each():
    tensors = [
        vector(1500, torch.float32),
        None,
        vector(70, torch.bfloat16),
        vector(5, torch.float32),
    ]
    sizes = sizes_of(tensors)
    base, scale = vector(sum(sizes), torch.float32), vector(sum(sizes), torch.float32)
    out = torch.empty_like(base)
    truth = base.double() + scale.double() * flat(tensors, sizes)
    with strict(also={"tensors": [t for t in tensors if t is not None]}) as run:
        partials = gather(tensors, shapes_of(tensors, sizes), out, scale, base)
    assert len(run.launches) == 2
    assert_accurate(out, truth)
    assert_accurate(partials.sum(), truth @ base.double(), rtol=1e-5)


def test_gather_repeats_bit_by_bit_in_any_order_of_programs():
    results = []
    for order in ORDERS:
        torch.manual_seed(0)
        tensors = [
            vector(5000, torch.float32),
            vector(3, torch.float32),
            vector(9000, torch.float32),
        ]
        sizes = sizes_of(tensors)
        base, scale = vector(sum(sizes), torch.float32), vector(sum(sizes), torch.float32)
        out = torch.empty_like(base)
        with strict(order=order, also={"tensors": tensors}):
            partials = gather(tensors, shapes_of(tensors, sizes), out, scale, base)
        results.append(torch.cat([out, partials]))
    assert all(torch.equal(result, results[0]) for result in results)


SHAPES = [(8, 8), (1000,), (3,), (1,), (), (0, 4), (5, 3, 7, 11), (2048,), (1025,)]


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, None], ids=str)
def test_scatter(scaled, dtype):
    shapes = [torch.Size(shape) for shape in SHAPES]
    kinds = [dtype or (torch.float16 if i % 2 else torch.float32) for i in range(len(shapes))]
    flat_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    n = sum(shape.numel() for shape in shapes)
    source = vector(n, flat_dtype)
    scale = vector(n, flat_dtype) if scaled else None
    truth = source.double() * (1 if scale is None else scale.double())
    with strict() as run:
        tensors = scatter(source, shapes, kinds, scale)
    assert len(run.launches) == (1 if dtype else 2)
    pieces = truth.split([shape.numel() for shape in shapes])
    for tensor, piece, shape, kind in zip(tensors, pieces, shapes, kinds, strict=True):
        assert tensor.shape == shape
        assert tensor.dtype == kind
        assert tensor.data_ptr() % 16 == 0
        assert_accurate(tensor, piece.view(shape))


def test_scatter_does_not_write_where_its_results_were_used_before():
    source = vector(100, torch.float32)
    first = scatter(source, [torch.Size([100])], [torch.float32])
    before = first[0].clone()
    scatter(2 * source, [torch.Size([100])], [torch.float32])
    assert torch.equal(first[0], before)


def test_strides_are_described_by_as_few_dimensions_as_there_are():
    image = torch.zeros(2, 3, 5, 4)
    assert collapse(image) == ([1, 1, 1, 120], [0, 0, 0, 1])
    channels_last = image.to(memory_format=torch.channels_last)
    assert collapse(channels_last) == ([1, 2, 3, 20], [0, 60, 1, 3])
    assert collapse(torch.zeros(())) == ([1, 1, 1, 1], [0, 0, 0, 0])
    assert collapse(torch.zeros(2, 2, 2, 3, 4).permute(4, 2, 0, 3, 1)) is None


def test_rows_say_which_accesses_are_aligned():
    tensor = torch.zeros(4096)
    assert row(tensor, 0, 4096, 4)[2] == ALIGNED
    assert row(tensor, 4, 4096, 4)[2] == ALIGNED
    assert row(tensor, 2, 4096, 4)[2] == CONTIGUOUS
    assert row(tensor, 2, 4096, 8)[2] == ALIGNED
    assert row(tensor[1:], 0, 4095, 4)[2] == CONTIGUOUS
    assert row(tensor[::2], 0, 2048, 4)[2] == STRIDED
