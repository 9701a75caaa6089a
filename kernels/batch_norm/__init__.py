"""Batch normalization, with first and second derivatives."""
