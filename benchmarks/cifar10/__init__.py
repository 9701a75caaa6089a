"""Implicit against explicit regularization on CIFAR-10: cells, runs, and their queue."""
