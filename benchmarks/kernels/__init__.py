"""What the Triton kernels cost: compiled code, launches and, on a device, time."""
