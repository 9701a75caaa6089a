"""Layer normalization, with first and second derivatives."""
