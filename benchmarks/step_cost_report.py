"""The cost of a step as a table and a plot."""

from pathlib import Path

from benchmarks.harness import picture

HEADS = ("optimizer", "ms", "x Adam", "backward calls", "peak GB", "tensors GB", "error")


def cells(row: dict) -> list[str]:
    """Return the figures of one optimizer as a row of the table."""
    if "failure" in row:
        return [row["name"], f"fails: {row['failure']}"]
    formats = {"peak_memory_gb": ".2f", "peak_tensors_gb": ".2f", "step_error": ".1e"}
    return [
        row["name"],
        f"{1e3 * row['median_s']:.0f} ({1e3 * row['p20_s']:.0f}-{1e3 * row['p80_s']:.0f})",
        f"{row['relative_to_adam']:.2f}",
        "" if row["backward_calls"] is None else str(row["backward_calls"]),
        *("" if row.get(key) is None else format(row[key], f) for key, f in formats.items()),
    ]


def draw(workloads: dict[str, dict], path: Path) -> None:
    """Plot time relative to Adam and peak tensor memory; a row per workload."""
    count = len(workloads)
    with picture(path, (10, 2.6 * count), rows=count, columns=2) as (_, axes):
        for workload, (left, right) in zip(workloads.values(), axes, strict=True):
            rows = workload["rows"].values()
            names = [row["name"] for row in rows]
            colors = ["C1" if "compopt ACGD" in name else "0.6" for name in names]
            for axis, key in ((left, "relative_to_adam"), (right, "peak_tensors_gb")):
                values = [row.get(key) or 0.0 for row in rows]
                bars = axis.barh(names, values, color=colors)
                labels = [f"{value:.2f}" if value else "fails" for value in values]
                axis.bar_label(bars, labels, padding=3)
                axis.margins(x=0.15)
                axis.invert_yaxis()
            left.set_title(workload["title"], loc="left")
            left.set_xlabel("time of a step, Adam = 1")
            right.set_xlabel("most that tensors occupy, GB")
            right.set_yticklabels([])
