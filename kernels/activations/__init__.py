"""Bias and activation, with first and second derivatives."""
