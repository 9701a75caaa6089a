"""Offsets above 2^31: the addresses that the last program of a launch would touch."""

import pytest
import torch
import triton.language as tl
from noted_addresses import note_addresses

from compopt.kernels import _blocks
from compopt.kernels.activations import triton as activations_triton
from compopt.kernels.adaptive import triton as adaptive_triton
from compopt.kernels.batch_norm import kernels as norms_kernels
from compopt.kernels.cg import triton as cg_triton
from compopt.kernels.layer_norm import triton as layer_norm_triton
from compopt.kernels.linear import triton as linear_triton
from compopt.kernels.lists import triton as lists_triton
from compopt.kernels.penalties import triton as penalties_triton

N = 2**31 + 5
BLOCK = 1 << 16
ACC = {"ACC": tl.float32}


@pytest.fixture
def vectors(monkeypatch):
    # It takes the end of the vector, besides every so many blocks.
    return note_addresses(monkeypatch, (N // BLOCK % 4096,), (4096,))


def test_directions(vectors):
    p, r = (vectors.tensor() for _ in range(2))
    state = vectors.table([2.0, 1, 0, 0, 0, 1, 0, 0, 1], torch.float32)
    cg_triton.cg_direction_kernel[(1,)](p, r, state, N, N // BLOCK, tl.float32, BLOCK)
    assert vectors.last(p) == vectors.last(r) == N - 1


def test_updates(vectors):
    x, y, r, p, t, q, curvature, partial = (vectors.tensor() for _ in range(8))
    state = vectors.table([2.0, 0, 0, 0, 0, 1, 0, 0, 1], torch.float32)
    counts = N, N, N // BLOCK, N // BLOCK, 1
    cg_triton.cg_update_kernel[(1,)](
        *(
            x,
            y,
            r,
            p,
            t,
            q,
            r,
            curvature,
            state,
            partial,
            *counts,
            True,
            True,
            tl.float32,
            BLOCK,
            16,
        )
    )
    for tensor in (x, y, r, p, t, q):
        assert vectors.last(tensor) == N - 1


def test_inner_products(vectors):
    a, b, partial = (vectors.tensor() for _ in range(3))
    cg_triton.partial_dot_kernel[(1,)](a, b, partial, N, N // BLOCK, tl.float32, BLOCK)
    assert vectors.last(a) == vectors.last(b) == N - 1


def test_averages(vectors):
    average, grad = (vectors.tensor() for _ in range(2))
    adaptive_triton.average_squares_kernel[(1,)](
        average, grad, None, 0.5, 0.5, N, N // BLOCK, False, tl.float32, BLOCK
    )
    assert vectors.last(average) == vectors.last(grad) == N - 1


def test_set_ups(vectors):
    tensors = [vectors.tensor() for _ in range(5)]
    adaptive_triton.adaptive_setup_kernel[(1,)](
        *(*tensors, None, None, 0.5, 0.5, -0.7, 0.1, 1e-5, N, N // BLOCK),
        *(True, True, False, False, False, tl.float32, BLOCK),
    )
    for tensor in tensors:
        assert vectors.last(tensor) == N - 1


def test_offsets_of_vectors_are_formed_in_one_place():
    assert _blocks.lanes is cg_triton.lanes is adaptive_triton.lanes


@pytest.mark.parametrize("start", [N - 5, N - 5 - BLOCK], ids=["end of a tensor", "whole block"])
def test_lists(monkeypatch, start):
    """One tensor of the list is as long as the flat vector."""
    noted = note_addresses(monkeypatch, (0,), (1,))
    out, scale, base, partial, tensor, room = (noted.tensor() for _ in range(6))
    blocks = noted.table([0, start])
    rows = [0, N, 1, 1, 1, 1, N, 0, 0, 0, 1]
    address = noted.table([tensor.data_ptr()])
    last = min(start + BLOCK, N) - 1
    common = {"DTYPE": tl.float32, "FLAT_ALIGNMENT": 4, "BLOCK": BLOCK, **ACC}
    lists_triton.gather_kernel[(1,)](
        *(address, noted.table(rows), blocks, out, scale, base, partial, 1),
        **{"HAS_SCALE": True, "HAS_BASE": True, **common},
    )
    assert [noted.last(t) for t in (tensor, out, scale, base)] == [last] * 4
    room.dtype = torch.uint8
    lists_triton.scatter_kernel[(1,)](
        *(noted.table([0, N, 1, 0]), blocks, room, out, scale, 1), **{"HAS_SCALE": True, **common}
    )
    assert noted.last(room) == last


SHAPES = {
    # Channels, rows, columns, row stride; the last group; rows and columns of a tile.
    "by row": ((2**14, 2049, 64, 2**20), 2**14 - 1, (False, 32, 64)),
    "one large image": ((2049, 1, 2**20, 2**31 + 2**20), 2048, (False, 1, 2**20)),
    "by column": ((2**15, 65537, 2**15, 2**15), 511, (True, 512, 64)),
}


@pytest.mark.parametrize(("sizes", "group", "tile"), SHAPES.values(), ids=SHAPES)
def test_batch_norm(monkeypatch, sizes, group, tile):
    channels, rows, cols, stride = sizes
    by_column, height, width = tile
    # As a geometry shares rows among 64 splits; the last one that has some.
    share = -(-rows // 64 // height) * height
    noted = note_addresses(monkeypatch, (group, (rows - 1) // share), (group + 1, 64))
    arguments = rows, cols, stride, channels, share, 0.2
    constants = {"BY_COLUMN": by_column, "ROWS": height, "COLS": width, **ACC}
    last = (rows - 1) * stride + (cols if by_column else channels * cols) - 1
    assert last >= 2**31

    a, b, y, shift, factor, partial = (noted.tensor() for _ in range(6))
    flags = {"MASK_A": True, "MASK_B": False}
    norms_kernels.channel_sums_kernel[(1,)](
        a, b, y, shift, factor, partial, *arguments, **flags, MOMENTS=False, **constants
    )
    assert noted.last(a) == noted.last(b) == noted.last(y) == last
    assert noted.last(shift) == channels - 1

    x = noted.tensor()
    flags = {"MASK_A": False, "MASK_B": False}
    norms_kernels.channel_sums_kernel[(1,)](
        x, x, x, shift, factor, partial, *arguments, **flags, MOMENTS=True, **constants
    )
    assert noted.last(x) == last

    x, out, *vectors = (noted.tensor() for _ in range(9))
    norms_kernels.normalize_kernel[(1,)](
        *(x, vectors[0], vectors[1], partial, out, *vectors[2:6], *arguments, 9, 1.1),
        *(0.1, 0.9, 1e-5),
        **{"AFFINE": True, "RUNNING": True, "SPLITS": 2, **constants},
    )
    assert noted.last(x) == noted.last(out) == last

    for kind in (norms_kernels.GRADIENT, norms_kernels.TANGENT, norms_kernels.CURVATURE):
        v, grad, x, y, out = (noted.tensor() for _ in range(5))
        vectors = [noted.tensor() for _ in range(10)]
        norms_kernels.derivative_kernel[(1,)](
            *(v, grad, x, y, *vectors[:8], partial, out, *vectors[8:], *arguments, 9),
            **{"KIND": kind, "AFFINE": True, "MASKED": True, "SPLITS": 2, **constants},
        )
        assert noted.last(v) == noted.last(x) == noted.last(y) == noted.last(out) == last
        if kind is norms_kernels.CURVATURE:
            assert noted.last(grad) == last


@pytest.mark.parametrize("kind", range(4))
def test_layer_norm(monkeypatch, kind):
    rows, cols = 2**18 + 1, 8192
    noted = note_addresses(monkeypatch, (1020,), (1021,))
    tensors = [noted.tensor() for _ in range(12)]
    layer_norm_triton.layer_norm_kernel[(1,)](
        *(*tensors, rows, tl.core.tensor(_number(cols), tl.int32), 257, 1e-5),
        **{"KIND": tl.constexpr(kind), "AFFINE": True, "BLOCK": cols, **ACC},
    )
    v, grad, x, *_, projected, out, _, _ = tensors
    read = {0: [x], 1: [x, grad], 2: [x, v, projected], 3: [x, v, grad, projected]}[kind]
    for tensor in (*read, out):
        assert noted.last(tensor) == rows * cols - 1


def _number(value):
    from numpy import array, int32
    from triton.runtime.interpreter import TensorHandle

    return TensorHandle(array([value], int32), tl.int32)


@pytest.mark.parametrize("what", range(3))
def test_activations(monkeypatch, what):
    noted = note_addresses(monkeypatch, (N // BLOCK,), (N // BLOCK + 1,))
    v, v_bias, grad, source, bias, out = (noted.tensor() for _ in range(6))
    activations_triton.bias_act_kernel[(1,)](
        *(v, v_bias, grad, source, bias, out, N, 1, 7, 0.2),
        **{"WHAT": tl.constexpr(what), "KIND": activations_triton.SILU, "HAS_BIAS": True},
        **{"HAS_V_BIAS": True, "BLOCK": BLOCK, **ACC},
    )
    for tensor in [source, out, *([v] if what else []), *([grad] if what == 2 else [])]:
        assert noted.last(tensor) == N - 1
    assert noted.last(bias) == 6


@pytest.mark.parametrize("sizes", [(2**15 + 1, 17, 2**16), (2**15 + 1, 2**16, 16)], ids=str)
def test_linear_tangent(monkeypatch, sizes):
    rows, cols, inner = sizes
    programs = -(-rows // 16) * -(-cols // 16)
    noted = note_addresses(monkeypatch, (programs - 1,), (programs,))
    x_dot, weight, x, weight_dot, bias, out = (noted.tensor() for _ in range(6))
    linear_triton.linear_tangent_kernel[(1,)](
        *(x_dot, weight, x, weight_dot, bias, out, *sizes),
        **{"HAS_BIAS": True, "ROWS": 16, "COLS": 16, "INNER": min(inner, 2**14)},
        **{"PRECISION": "ieee", **ACC},
    )
    assert noted.last(x_dot) == noted.last(x) == rows * inner - 1
    assert noted.last(weight) == noted.last(weight_dot) == cols * inner - 1
    assert noted.last(out) == rows * cols - 1
    assert max(rows * inner, rows * cols) > 2**31


@pytest.mark.parametrize("store", [False, True], ids=["sums", "strip"])
def test_gram_strips(monkeypatch, store):
    rows, cols = 2**16 + 1, 2**15
    programs = (2**12 + 1) ** 2
    noted = note_addresses(monkeypatch, (programs - 1,), (programs,))
    weight, inverse, strip, partial = (noted.tensor() for _ in range(4))
    penalties_triton.gram_strip_kernel[(1,)](
        *(weight, inverse, strip, partial, 0, rows, rows, cols, 0.1, 0.1),
        **{"STORE": store, "ROWS": 16, "COLS": 16, "INNER": 2**14, "PRECISION": "ieee", **ACC},
    )
    assert noted.last(weight) == rows * cols - 1 > 2**31 - 2
    assert not store or noted.last(strip) == rows * rows - 1


def test_gram_products(monkeypatch):
    rows, inner, cols = 2**26 + 1, 64, 33
    noted = note_addresses(monkeypatch, (2**20,), (2**20 + 1,))
    weight, block, out, partial = (noted.tensor() for _ in range(4))
    penalties_triton.gram_product_kernel[(1,)](
        *(weight, block, out, partial, rows, inner, cols, inner, 1),
        **{"ROWS": 64, "COLS": 64, "INNER": 64, "PRECISION": "ieee", **ACC},
    )
    assert noted.last(weight) == rows * inner - 1
    assert noted.last(out) == rows * cols - 1
    assert noted.last(partial) == (2**20 + 1) * 64 * 64 - 1
