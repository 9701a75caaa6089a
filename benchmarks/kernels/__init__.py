"""Costs of the Triton kernels: compiled code, launches and, on a device, time."""
