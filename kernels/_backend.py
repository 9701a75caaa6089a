"""Which implementation of the kernels is usable here."""

BACKENDS = ("auto", "torch")


def resolve_backend(backend: str) -> str:
    """Return the implementation that ``backend`` stands for: always ``"torch"`` so far.

    Raises:
        ValueError: if ``backend`` is not known.
        RuntimeError: if it is ``"triton"``, which has no kernels in this version.
    """
    if backend == "triton":
        raise RuntimeError(
            'The backend "triton" was requested, but this version has no Triton kernels. '
            'Use backend="auto" or backend="torch".'
        )
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    return "torch"
