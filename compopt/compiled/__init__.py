"""Steps as one program: compiled on the CPU, captured as a device graph on a GPU."""

from compopt.compiled.step import CompiledStep, Mode, compile  # noqa: A004

__all__ = ["CompiledStep", "Mode", "compile"]
