"""The page."""
from benchmarks.harness import RESULTS
PAGE = RESULTS.parents[1] / "docs" / "claims.md"
def page() -> str:
    return "# Claims\n"
