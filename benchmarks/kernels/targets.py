"""The devices that kernels are compiled for, and those whose times are modelled."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What code is generated for.

    Attributes:
        name: ``sm_90`` or ``gfx942``.
        backend: ``cuda`` or ``hip``.
        arch: as Triton spells it.
        warp_size: threads.
        shared_bytes: of shared memory that one program can have.
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
        name: of the device.
        target: what is compiled for it.
        bytes_per_second: of its memory.
        flops_per_second: float32, without matrix units.
        matrix_flops_per_second: bfloat16, dense, with matrix units.
    """

    name: str
    target: str
    bytes_per_second: float
    flops_per_second: float
    matrix_flops_per_second: float

    def seconds(self, bytes_moved: float, flops: float, *, matrix_unit: bool = False) -> float:
        """Return the least time that the memory and the arithmetic allow."""
        rate = self.matrix_flops_per_second if matrix_unit else self.flops_per_second
        return max(bytes_moved / self.bytes_per_second, flops / rate)


ROOFLINES = (
    Roofline("A100 SXM 80GB", "sm_80", 2.039e12, 19.5e12, 312e12),
    Roofline("H100 SXM", "sm_90", 3.35e12, 66.9e12, 989e12),
    Roofline("MI300X", "gfx942", 5.3e12, 163.4e12, 1307e12),
)
