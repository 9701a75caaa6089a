"""The R-operator of a linear layer."""
