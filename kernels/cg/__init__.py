"""The conjugate gradient iteration."""
