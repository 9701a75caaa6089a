"""Devices to compile kernels for, and devices to model times for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A target of code generation.

    Attributes:
        name: ``sm_90`` or ``gfx942``.
        backend: ``cuda`` or ``hip``.
        arch: architecture as Triton spells it.
        warp_size: threads per warp.
        shared_bytes: maximum shared memory of one program.
    """

    name: str
    backend: str
    arch: int | str
    warp_size: int
    shared_bytes: int


TARGETS = {
    target.name: target
    for target in (
        Target("sm_80", "cuda", 80, 32, 163 * 1024),
        Target("sm_90", "cuda", 90, 32, 227 * 1024),
        Target("sm_100", "cuda", 100, 32, 227 * 1024),
        Target("sm_120", "cuda", 120, 32, 99 * 1024),
        Target("gfx942", "hip", "gfx942", 64, 64 * 1024),
    )
}


@dataclass(frozen=True)
class Roofline:
    """A device's published peak rates.

    Attributes:
        name: name of the device.
        target: its compilation target.
        bytes_per_second: memory bandwidth.
        flops_per_second: float32, without matrix units.
        matrix_flops_per_second: bfloat16, dense, with matrix units.
    """

    name: str
    target: str
    bytes_per_second: float
    flops_per_second: float
    matrix_flops_per_second: float

    def seconds(self, bytes_moved: float, flops: float, *, matrix_unit: bool = False) -> float:
        """Return the least time that memory bandwidth and arithmetic rate allow."""
        rate = self.matrix_flops_per_second if matrix_unit else self.flops_per_second
        return max(bytes_moved / self.bytes_per_second, flops / rate)


ROOFLINES = (
    Roofline("A100 SXM 80GB", "sm_80", 2.039e12, 19.5e12, 312e12),
    Roofline("H100 SXM", "sm_90", 3.35e12, 66.9e12, 989e12),
    Roofline("MI300X", "gfx942", 5.3e12, 163.4e12, 1307e12),
)
