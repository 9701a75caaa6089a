"""Benchmarks: speed and memory against other packages."""
