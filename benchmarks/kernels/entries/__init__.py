"""The table of kernels, a module for each operation."""
