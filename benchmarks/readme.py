"""Write the measured figures into the README: ``python -m benchmarks.readme``."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"


def step_cost_section(data: dict) -> str:
    """Return the cost of a step as text and a table."""
    workload, conditions = data["workload"], data["conditions"]
    lines = [
        f"Measured on the published small CIFAR-10 WGAN (generator "
        f"{workload['generator_parameters'] / 1e6:.2f} M parameters, critic "
        f"{workload['critic_parameters'] / 1e6:.2f} M, batch {workload['batch_size']}, lr 1e-4; "
        f"{conditions['processor']}, {conditions['threads']} threads, torch "
        f"{conditions['torch']}; medians of {workload['rounds']} interleaved rounds). "
        "`python -m benchmarks.step_cost` measures it on your machine.",
    ]
    for title, rows in data["sections"].items():
        lines += ["", f"| {title} | time, Adam = 1 | backward calls | peak memory, GB |"]
        lines.append("|---|---|---|---|")
        for row in rows.values():
            if "failure" in row:
                lines.append(f"| {row['name']} | fails: {row['failure']} | | |")
                continue
            lines.append(
                f"| {row['name']} | {row['relative_to_adam']:.2f} | {row['backward_calls']} | "
                f"{row['peak_memory_gb']:.2f} |"
            )
    return "\n".join(lines)


def with_section(text: str, name: str, section: str) -> str:
    """Return ``text`` with what stands between the markers of ``name`` replaced."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    replaced, count = pattern.subn(lambda match: f"{match[1]}{section}\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"`text` must have the markers of {name!r} once, got {count} times.")
    return replaced


def updated(text: str) -> str:
    """Return the README's text with the figures of the stored results."""
    data = json.loads((RESULTS / "step_cost.json").read_text())
    return with_section(text, "step-cost", step_cost_section(data))


def main() -> None:
    """Update the README in place."""
    README.write_text(updated(README.read_text()))


if __name__ == "__main__":
    main()
