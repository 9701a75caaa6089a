"""The Triton kernels of batch normalization, launched by ``triton.py``.

A tensor is treated as rows of adjacent entries: in the layout [N, C, S] each channel has N rows
of S entries; a channels-last tensor has N*S rows of C channels. A program sums tiles over its share
of the rows (a split) and writes one partial sum per channel. The programs of the second launch add
the partial sums of their channels in the order of splits. So there are no atomic operations, and
results do not depend on the order of programs. Sums are in float32, or float64 for float64
inputs.
"""

import triton
import triton.language as tl

from .._jit import kernel

GRADIENT = tl.constexpr(0)
TANGENT = tl.constexpr(1)
CURVATURE = tl.constexpr(2)


@triton.jit
def _masked(value, y, slope):
    return tl.where(y > 0, value, value * slope)


@triton.jit
def _channels(group, num_cols, BY_COLUMN: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr):
    """Return the channels [1, COLS or WIDTH] of a program, and the offset of its first row."""
    if BY_COLUMN:
        channel = group * COLS + tl.arange(0, COLS)[None, :]
        base = tl.cast(0, tl.int64)
    else:
        channel = tl.cast(group, tl.int64) + tl.zeros([1, WIDTH], tl.int64)
        base = tl.cast(group, tl.int64) * num_cols
    return channel, base


@triton.jit
def _tile(
    channel,
    base,
    rows,
    last,
    col,
    num_cols,
    row_stride,
    BY_COLUMN: tl.constexpr,
    COLS: tl.constexpr,
):
    """Return the offsets [rows, COLS] of a tile, and a mask of those that exist."""
    cols = channel if BY_COLUMN else col + tl.arange(0, COLS)[None, :]
    mask = (rows < last) & (cols < num_cols)
    return base + tl.cast(rows, tl.int64) * row_stride + cols, mask


@kernel
def channel_sums_kernel(
    a_ptr,
    b_ptr,
    y_ptr,
    shift_ptr,
    factor_ptr,
    partial_ptr,
    num_rows,
    num_cols,
    row_stride,
    num_channels,
    rows_per_split,
    slope: tl.float64,
    MASK_A: tl.constexpr,
    MASK_B: tl.constexpr,
    MOMENTS: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write partial sums [2, splits, C] of ``a`` and of ``a (b - shift) factor``.

    With MOMENTS, of ``a - s`` and its square instead, where s is the first entry of the channel.
    MASK_A or MASK_B: a or b is a gradient to pass back through the leaky ReLU with output y. With
    MASK_B, b is not shifted and scaled.
    """
    group = tl.program_id(0)
    split = tl.program_id(1)
    slope = tl.full([1, 1], slope, ACC)
    channel, base = _channels(group, num_cols, BY_COLUMN, COLS, COLS)
    there = channel < num_channels
    if MOMENTS:
        origin = channel if BY_COLUMN else channel * num_cols
        shift = tl.load(a_ptr + origin, mask=there, other=0.0).to(ACC)
        factor = 1.0
    elif MASK_B:
        shift = 0.0
        factor = 1.0
    else:
        shift = tl.load(shift_ptr + channel, mask=there, other=0.0).to(ACC)
        factor = tl.load(factor_ptr + channel, mask=there, other=0.0).to(ACC)
    total = tl.zeros([ROWS, COLS], ACC)
    product = tl.zeros([ROWS, COLS], ACC)
    first = split * rows_per_split
    last = tl.minimum(first + rows_per_split, num_rows)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS)[:, None]
        for col in range(0, COLS if BY_COLUMN else num_cols, COLS):
            at, mask = _tile(channel, base, rows, last, col, num_cols, row_stride, BY_COLUMN, COLS)
            a = tl.load(a_ptr + at, mask=mask, other=0.0).to(ACC)
            if MASK_A or MASK_B:
                y = tl.load(y_ptr + at, mask=mask, other=0.0).to(ACC)
            if MOMENTS:
                a = tl.where(mask, a - shift, 0.0)
                b = a
            else:
                if MASK_A:
                    a = _masked(a, y, slope)
                b = tl.load(b_ptr + at, mask=mask, other=0.0).to(ACC)
                b = _masked(b, y, slope) if MASK_B else (b - shift) * factor
            total += a
            product += a * b
    num_splits = tl.num_programs(1)
    if BY_COLUMN:
        out = partial_ptr + split * num_channels + group * COLS + tl.arange(0, COLS)
        here = group * COLS + tl.arange(0, COLS) < num_channels
        tl.store(out, tl.sum(total, 0), mask=here)
        tl.store(out + num_splits * num_channels, tl.sum(product, 0), mask=here)
    else:
        out = partial_ptr + split * num_channels + group
        tl.store(out, tl.sum(tl.sum(total, 1), 0))
        tl.store(out + num_splits * num_channels, tl.sum(tl.sum(product, 1), 0))


@triton.jit
def _add_splits(
    partial_ptr, channel, num_channels, num_splits, SPLITS: tl.constexpr, ACC: tl.constexpr
):
    """Return the sum [1, n] over splits for the channels [1, n]."""
    split = tl.arange(0, SPLITS)[:, None]
    mask = (split < num_splits) & (channel < num_channels)
    part = tl.load(partial_ptr + split * num_channels + channel, mask=mask, other=0.0)
    return tl.sum(part.to(ACC), 0)[None, :]


@kernel
def normalize_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    partial_ptr,
    y_ptr,
    mean_ptr,
    invstd_ptr,
    running_mean_ptr,
    running_var_ptr,
    num_rows,
    num_cols,
    row_stride,
    num_channels,
    rows_per_split,
    slope: tl.float64,
    size,
    unbiased: tl.float64,
    momentum: tl.float64,
    one_minus_momentum: tl.float64,
    eps: tl.float64,
    AFFINE: tl.constexpr,
    RUNNING: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    SPLITS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write ``y`` from partial sums of the moments; the first split writes the statistics.

    ``size`` is the number of entries per channel, ``unbiased`` is ``size / (size - 1)``.
    """
    group = tl.program_id(0)
    split = tl.program_id(1)
    slope = tl.full([1, 1], slope, ACC)
    num_splits = tl.num_programs(1)
    channel, base = _channels(group, num_cols, BY_COLUMN, COLS, 1)
    there = channel < num_channels
    origin = channel if BY_COLUMN else channel * num_cols
    total = _add_splits(partial_ptr, channel, num_channels, num_splits, SPLITS, ACC)
    squares = partial_ptr + num_splits * num_channels
    square = _add_splits(squares, channel, num_channels, num_splits, SPLITS, ACC)
    from_first = total / size
    mean = tl.load(x_ptr + origin, mask=there, other=0.0).to(ACC) + from_first
    # Clamp at zero: rounding can make the difference negative.
    var = tl.maximum(square / size - from_first * from_first, 0.0)
    invstd = 1.0 / tl.sqrt(var + tl.full([1, 1], eps, ACC))
    if split == 0:
        tl.store(mean_ptr + channel, mean, mask=there)
        tl.store(invstd_ptr + channel, invstd, mask=there)
        if RUNNING:
            keep = tl.full([1, 1], one_minus_momentum, ACC)
            weight_of_new = tl.full([1, 1], momentum, ACC)
            old = tl.load(running_mean_ptr + channel, mask=there, other=0.0).to(ACC)
            new = old * keep + mean * weight_of_new
            tl.store(running_mean_ptr + channel, new, mask=there)
            old = tl.load(running_var_ptr + channel, mask=there, other=0.0).to(ACC)
            new = old * keep + var * tl.full([1, 1], unbiased, ACC) * weight_of_new
            tl.store(running_var_ptr + channel, new, mask=there)
    if AFFINE:
        weight = tl.load(weight_ptr + channel, mask=there, other=0.0).to(ACC)
        bias = tl.load(bias_ptr + channel, mask=there, other=0.0).to(ACC)
    else:
        weight = 1.0
        bias = 0.0
    first = split * rows_per_split
    last = tl.minimum(first + rows_per_split, num_rows)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS)[:, None]
        for col in range(0, COLS if BY_COLUMN else num_cols, COLS):
            at, mask = _tile(channel, base, rows, last, col, num_cols, row_stride, BY_COLUMN, COLS)
            x = tl.load(x_ptr + at, mask=mask, other=0.0).to(ACC)
            y = (x - mean) * invstd * weight + bias
            tl.store(y_ptr + at, _masked(y, y, slope), mask=mask)


@kernel
def derivative_kernel(
    v_ptr,
    grad_ptr,
    x_ptr,
    y_ptr,
    weight_ptr,
    mean_ptr,
    invstd_ptr,
    v_weight_ptr,
    v_bias_ptr,
    grad_weight_ptr,
    grad_bias_ptr,
    sums_ptr,
    partial_ptr,
    out_ptr,
    first_ptr,
    second_ptr,
    num_rows,
    num_cols,
    row_stride,
    num_channels,
    rows_per_split,
    slope: tl.float64,
    size,
    KIND: tl.constexpr,
    AFFINE: tl.constexpr,
    MASKED: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    SPLITS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write a derivative as ``for_v v + for_g g + for_x xhat + constant`` by channel.

    GRADIENT uses g as v and writes sum(g) and sum(g xhat) to ``first`` and ``second``. TANGENT
    writes the same sums of v. CURVATURE writes the part for the weight to ``first``.
    """
    group = tl.program_id(0)
    split = tl.program_id(1)
    slope = tl.full([1, 1], slope, ACC)
    num_splits = tl.num_programs(1)
    channel, base = _channels(group, num_cols, BY_COLUMN, COLS, 1)
    there = channel < num_channels
    mean = tl.load(mean_ptr + channel, mask=there, other=0.0).to(ACC)
    invstd = tl.load(invstd_ptr + channel, mask=there, other=0.0).to(ACC)
    scale = invstd
    if AFFINE:
        scale = invstd * tl.load(weight_ptr + channel, mask=there, other=0.0).to(ACC)
    products = partial_ptr + num_splits * num_channels
    product = _add_splits(products, channel, num_channels, num_splits, SPLITS, ACC)
    if KIND == CURVATURE:
        v_mean = tl.load(sums_ptr + channel, mask=there, other=0.0).to(ACC) / size
        d = tl.load(sums_ptr + num_channels + channel, mask=there, other=0.0).to(ACC) / size
        c = tl.load(grad_weight_ptr + channel, mask=there, other=0.0).to(ACC) / size
        g_mean = tl.load(grad_bias_ptr + channel, mask=there, other=0.0).to(ACC) / size
        v_weight = tl.load(v_weight_ptr + channel, mask=there, other=0.0).to(ACC)
        a = product / size - v_mean * g_mean - c * d
        if split == 0:
            tl.store(first_ptr + channel, invstd * size * a, mask=there)
        for_v = -scale * invstd * c
        for_g = invstd * (v_weight - scale * d)
        for_x = -invstd * (v_weight * c + scale * (a - 2 * c * d))
        constant = -for_v * v_mean - for_g * g_mean
    else:
        total = _add_splits(partial_ptr, channel, num_channels, num_splits, SPLITS, ACC)
        if split == 0:
            tl.store(first_ptr + channel, total, mask=there)
            tl.store(second_ptr + channel, product, mask=there)
        for_v = scale
        for_x = -scale * product / size
        constant = -scale * total / size
        if KIND == TANGENT:
            for_x += tl.load(v_weight_ptr + channel, mask=there, other=0.0).to(ACC)
            constant += tl.load(v_bias_ptr + channel, mask=there, other=0.0).to(ACC)
    first = split * rows_per_split
    last = tl.minimum(first + rows_per_split, num_rows)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS)[:, None]
        for col in range(0, COLS if BY_COLUMN else num_cols, COLS):
            at, mask = _tile(channel, base, rows, last, col, num_cols, row_stride, BY_COLUMN, COLS)
            v = tl.load(v_ptr + at, mask=mask, other=0.0).to(ACC)
            x = tl.load(x_ptr + at, mask=mask, other=0.0).to(ACC)
            if MASKED:
                y = tl.load(y_ptr + at, mask=mask, other=0.0).to(ACC)
            if KIND == GRADIENT and MASKED:
                v = _masked(v, y, slope)
            out = for_v * v + for_x * ((x - mean) * invstd) + constant
            if KIND == CURVATURE:
                grad = tl.load(grad_ptr + at, mask=mask, other=0.0).to(ACC)
                out += for_g * (_masked(grad, y, slope) if MASKED else grad)
            if KIND == TANGENT and MASKED:
                out = _masked(out, y, slope)
            tl.store(out_ptr + at, out, mask=mask)
