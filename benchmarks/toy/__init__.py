"""The toy experiments of the CGD paper, for all optimizers, beside what the paper states."""
