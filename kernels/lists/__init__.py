"""Copies between lists of tensors and flat vectors."""
