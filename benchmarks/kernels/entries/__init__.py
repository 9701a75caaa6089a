"""Entries of the table of kernels, one module for each operation."""
