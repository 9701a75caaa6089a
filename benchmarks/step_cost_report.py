"""The cost of a step as a table and a plot."""

from pathlib import Path

from rich.table import Table


def table(title: str, rows: dict[str, dict]) -> Table:
    """Return the figures of one workload as a table."""
    columns = ("optimizer", "ms", "x Adam", "backward calls", "peak GB", "tensors GB", "error")
    result = Table(*columns, title=title)
    for row in rows.values():
        if "failure" in row:
            result.add_row(row["name"], f"fails: {row['failure']}", *[""] * 5)
            continue
        memory, tensors = row.get("peak_memory_gb"), row.get("peak_tensors_gb")
        error = row.get("step_error")
        result.add_row(
            row["name"],
            f"{1e3 * row['median_s']:.0f} ({1e3 * row['p20_s']:.0f}-{1e3 * row['p80_s']:.0f})",
            f"{row['relative_to_adam']:.2f}",
            "" if row["backward_calls"] is None else str(row["backward_calls"]),
            "" if memory is None else f"{memory:.2f}",
            "" if tensors is None else f"{tensors:.2f}",
            "" if error is None else f"{error:.1e}",
        )
    return result


def draw(workloads: dict[str, dict], path: Path) -> None:
    """Draw time relative to Adam and peak of tensors, a bar a contestant, a row a workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(workloads), 2, figsize=(10, 2.6 * len(workloads)), layout="constrained", squeeze=False
    )
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
            axis.spines[["top", "right"]].set_visible(False)
        left.set_title(workload["title"], loc="left")
        left.set_xlabel("time of a step, Adam = 1")
        right.set_xlabel("most that tensors occupy, GB")
        right.set_yticklabels([])
    figure.savefig(path, dpi=120)
    plt.close(figure)
