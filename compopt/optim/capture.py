"""What a step must be like to be captured as a device graph."""

from compopt.solvers import Solver


def check_capturable(solver: Solver, on_failure: str, solve_for: str) -> None:
    """Raise unless steps are alike and read nothing on the host."""
    if not getattr(solver, "has_fixed_count", False):
        raise ValueError(
            f"`capturable` needs a solver with a fixed iteration count, got {solver!r}. "
            "Use e.g. ConjugateGradient(rtol=0.0, max_iter=2)."
        )
    if on_failure == "raise":
        raise ValueError('`capturable` forbids `on_failure="raise"`, which reads a value.')
    if solve_for == "alternate":
        raise ValueError('`capturable` forbids `solve_for="alternate"`: steps must be alike.')
