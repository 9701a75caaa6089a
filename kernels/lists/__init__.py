"""Lists of tensors and flat vectors."""
