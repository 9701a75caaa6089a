"""A day on a lent GPU: what is to be measured there, in stages that can be gone on with."""
