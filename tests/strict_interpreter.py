"""A strict mode for Triton's interpreter, for launches inside ``with strict():``.

It needs ``TRITON_INTERPRET=1`` before Triton is imported, which ``tests/conftest.py`` sees to. It
adds to the interpreter what a device does and what a device does not forgive:

- bfloat16 arithmetic with its rounding, and the operand rounding of tf32 matrix products;
- NaN (a huge integer) in the masked lanes of a load that has no ``other=``;
- an error for an address outside the tensors that the launch was given;
- an error when two programs touch one element and one of them writes it, and when two lanes of one
  store hit one element;
- a choice of the order of programs;
- float arguments in float32, as launches pass them unless they are annotated ``tl.float64``.

What it cannot show: speed, the error of approximate instructions, the memory model.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import strict_numbers
import triton.language as tl
from strict_memory import Memory, ViolationError, undefined_like
from triton.runtime.interpreter import GridExecutor, InterpretedFunction, InterpreterBuilder

__all__ = ["Strict", "ViolationError", "strict"]


@dataclass
class Strict:
    """The settings of a strict run, and what has happened in it.

    Attributes:
        order: of the programs of a launch: None as counted, "reverse", or the seed of a shuffle.
        also: further tensors that kernels may touch: those behind addresses in tables.
        races: whether to look for races. Off only for kernels that synchronise by counters.
        launches: names of the kernels launched so far.
        written: of each kernel launched so far, the arguments whose memory it wrote to.
    """

    order: Literal["reverse"] | int | None = None
    also: Mapping[str, Any] = field(default_factory=dict)
    races: bool = True
    launches: list[str] = field(default_factory=list)
    written: dict[str, set[str]] = field(default_factory=dict)
    _memory: Memory = field(default_factory=lambda: Memory({}, set(), races=False))

    def begin(self, executor: GridExecutor, arguments: Mapping[str, Any]) -> None:
        """Note a launch."""
        self.launches.append(executor.fn.__name__)
        written = self.written.setdefault(self.launches[-1], set())
        self._memory = Memory({**self.also, **arguments}, written, races=self.races)

    def touch(self, kind: str, builder: InterpreterBuilder, pointers: Any, mask: Any) -> None:
        """Check the addresses of a memory access."""
        (x, y, z), (_, height, depth) = builder.grid_idx, builder.grid_dim
        self._memory.touch(kind, pointers, mask.data, (x * height + y) * depth + z)

    def place(self, index: int, count: int) -> int:
        """Return the program that is run as number ``index`` of ``count``."""
        if self.order is None:
            return index
        if self.order == "reverse":
            return count - 1 - index
        generator = np.random.default_rng([self.order, len(self.launches)])
        return int(generator.permutation(count)[index])


def _in_float32(executor: GridExecutor, name: str, value: Any) -> Any:
    annotation = str(inspect.get_annotations(executor.fn).get(name, ""))
    exact = annotation.endswith(("fp64", "float64"))
    passed_as_it_is = exact or name in executor.constexprs
    return float(np.float32(value)) if type(value) is float and not passed_as_it_is else value


def _memory_wrappers(run: Strict) -> dict[str, Callable]:
    def load(original: Callable) -> Callable:
        def wrapped(self: Any, pointers: Any, mask: Any, other: Any, *rest: Any, **options: Any):
            run.touch("load", self, pointers, mask)
            if other is None and not np.asarray(mask.data).all():
                other = undefined_like(pointers)
            return original(self, pointers, mask, other, *rest, **options)

        return wrapped

    def store(original: Callable) -> Callable:
        def wrapped(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any, **options: Any):
            run.touch("store", self, pointers, mask)
            return original(self, pointers, value, mask, *rest, **options)

        return wrapped

    def atomic(original: Callable) -> Callable:
        def wrapped(self: Any, op: Any, pointers: Any, value: Any, mask: Any, *rest: Any):
            run.touch("atomic", self, pointers, mask)
            return original(self, op, pointers, value, mask, *rest)

        return wrapped

    def place(original: Callable) -> Callable:
        def wrapped(self: Any, x: int, y: int, z: int):
            width, height, depth = self.grid_dim
            index = run.place((x * height + y) * depth + z, width * height * depth)
            rest, z = divmod(index, depth)
            return original(self, *divmod(rest, height), z)

        return wrapped

    return {
        "create_masked_load": load,
        "create_masked_store": store,
        "create_atomic_rmw": atomic,
        "set_grid_idx": place,
    }


def _executor_wrappers(run: Strict) -> dict[str, Callable]:
    def arguments(original: Callable) -> Callable:
        def wrapped(self: Any, args: Any, kwargs: Any):
            args, kwargs = original(self, args, kwargs)
            named = dict(zip(self.arg_names, args, strict=False))
            run.begin(self, {**named, **kwargs})
            return (
                [_in_float32(self, name, value) for name, value in named.items()],
                {name: _in_float32(self, name, value) for name, value in kwargs.items()},
            )

        return wrapped

    def launch(original: Callable) -> Callable:
        def wrapped(self: Any, *args: Any, **kwargs: Any):
            known = set(inspect.signature(self.fn).parameters) | _LAUNCH_OPTIONS
            if unknown := set(kwargs) - known:
                raise ViolationError(f"No argument and no launch option: {sorted(unknown)}.")
            try:
                return original(self, *args, **kwargs)
            except Exception as error:
                if isinstance(error.__cause__, ViolationError):
                    raise error.__cause__ from None
                raise

        return wrapped

    return {"_init_args_hst": arguments, "__call__": launch}


_LAUNCH_OPTIONS = {"num_warps", "num_stages", "num_ctas", "enable_fp_fusion", "maxnreg", "warmup"}


@contextlib.contextmanager
def strict(
    *,
    order: Literal["reverse"] | int | None = None,
    also: Mapping[str, Any] | None = None,
    races: bool = True,
) -> Iterator[Strict]:
    """Interpret the launches inside strictly; the arguments are those of :class:`Strict`.

    Raises:
        ViolationError: from the launch, when a kernel breaks a rule.
        RuntimeError: if this process compiles kernels.
    """
    if not isinstance(tl.sum, InterpretedFunction):
        raise RuntimeError(
            "Kernels are compiled in this process: start it with TRITON_INTERPRET=1, or unset."
        )
    run = Strict(order=order, also={} if also is None else also, races=races)
    wrappers = [(InterpreterBuilder, name, w) for name, w in strict_numbers.WRAPPERS.items()]
    wrappers += [(InterpreterBuilder, name, w) for name, w in _memory_wrappers(run).items()]
    wrappers += [(GridExecutor, name, w) for name, w in _executor_wrappers(run).items()]
    # A device divides by zero without a word.
    with contextlib.ExitStack() as stack, np.errstate(all="ignore"):
        for owner, name, wrap in wrappers:
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, wrap(original))
        yield run
