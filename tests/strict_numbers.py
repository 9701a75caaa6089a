"""What Triton's interpreter computes otherwise than a device: bfloat16 and tf32.

The interpreter keeps bfloat16 as the bits of a uint16 and computes on these bits, truncates where a
device rounds, and ignores ``input_precision``. The wrappers here go through float32.
"""

from collections.abc import Callable

import numpy as np
import triton.language as tl
from triton._C.libtriton import ir
from triton.runtime import interpreter
from triton.runtime.interpreter import TensorHandle

Method = Callable[..., TensorHandle]


def to_float32(bits: np.ndarray) -> np.ndarray:
    """Return the values of bfloat16 numbers that are given as uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return ``values`` rounded to the nearest bfloat16, ties to even, as uint16."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype(np.uint16)


def truncate_to_tf32(values: np.ndarray) -> np.ndarray:
    """Drop 13 bits of the fraction, as matrix units do with unconverted float32 operands."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def round_to_tf32(values: np.ndarray) -> np.ndarray:
    """Round to the nearest tf32, ties away from zero, as ``cvt.rna.tf32`` does."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def is_raw(handle: TensorHandle) -> bool:
    """Return whether a handle holds bits of bfloat16 numbers.

    Results of comparisons carry the operands' type, so the array counts as well.
    """
    return handle.dtype.scalar == tl.bfloat16 and handle.data.dtype == np.uint16


def cast(original: Method) -> Method:
    """Wrap a conversion."""

    def wrapped(self: object, source: TensorHandle, target: tl.dtype, *rest: object):
        scalar = target.scalar
        if is_raw(source) and scalar != tl.bfloat16:
            values = to_float32(source.data).astype(interpreter._get_np_dtype(target))
            return TensorHandle(values, scalar)
        if scalar == tl.bfloat16 and source.data.dtype != np.uint16:
            return TensorHandle(to_bfloat16(source.data), scalar)
        return original(self, source, target, *rest)

    return wrapped


def binary(original: Method) -> Method:
    """Wrap an operation of two operands."""

    def wrapped(self: object, left: TensorHandle, right: TensorHandle, function: Callable):
        if is_raw(left):
            other = to_float32(right.data) if right.data.dtype == np.uint16 else right.data
            result = function(to_float32(left.data), other)
            if result.dtype != np.bool_:
                result = to_bfloat16(result)
            return TensorHandle(result, left.dtype.scalar)
        return original(self, left, right, function)

    return wrapped


def unary(original: Method) -> Method:
    """Wrap an operation of one operand."""

    def wrapped(self: object, argument: TensorHandle, function: Callable):
        if is_raw(argument):
            return TensorHandle(to_bfloat16(function(to_float32(argument.data))), tl.bfloat16)
        return original(self, argument, function)

    return wrapped


def dot(original: Method) -> Method:
    """Wrap a matrix product."""

    def wrapped(
        self: object,
        left: TensorHandle,
        right: TensorHandle,
        accumulator: TensorHandle,
        precision: object,
        *rest: object,
    ):
        raw = is_raw(left) or is_raw(right)
        a = to_float32(left.data) if is_raw(left) else left.data
        b = to_float32(right.data) if is_raw(right) else right.data
        product = None
        if raw:
            product = np.matmul(a, b)
        elif a.dtype == np.float32 and b.dtype == np.float32:
            if precision == ir.INPUT_PRECISION.TF32:
                product = np.matmul(truncate_to_tf32(a), truncate_to_tf32(b))
            elif precision == ir.INPUT_PRECISION.TF32x3:
                a_high, b_high = round_to_tf32(a), round_to_tf32(b)
                a_low, b_low = round_to_tf32(a - a_high), round_to_tf32(b - b_high)
                product = np.matmul(a_high, b_low) + np.matmul(a_low, b_high)
                product += np.matmul(a_high, b_high)
        if product is None:
            return original(self, left, right, accumulator, precision, *rest)
        total = (product + accumulator.data).astype(accumulator.data.dtype)
        return TensorHandle(total, accumulator.dtype.scalar)

    return wrapped


WRAPPERS = {
    "cast_impl": cast,
    "create_fp_to_fp": cast,
    "binary_op": binary,
    "unary_op": unary,
    "create_dot": dot,
}
"""By name of the interpreter's method."""
