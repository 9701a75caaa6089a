"""Implicit against explicit regularization on CIFAR-10: cells, runs, and a queue of them."""
