"""Compiled steps of larger networks, in units of an eager Adam step.

Run ``python -m benchmarks.compiled_steps``. Measures as `benchmarks.small_games` does, with the
workloads of `benchmarks.step_cost`: Adam and ACGD with one iteration, eager and compiled, on one
thread. Each compilation takes up to minutes. Workloads that are not measured keep their figures.
"""

from functools import partial

import torch

from benchmarks.harness import RESULTS, arguments, read_result, write_result
from benchmarks.small_games import (
    COMPILED,
    CONTESTANTS,
    Play,
    measure,
    table,
)
from benchmarks.workloads import WORKLOADS

RESULT = RESULTS / "compiled_steps.json"
NAMES = ("small", "poisson", "dcgan", "resnet")
STEPS = {
    name: {**CONTESTANTS, **COMPILED}[name]
    for name in (
        "Adam",
        "Adam, compiled",
        "ACGD, one iteration",
        "ACGD, one iteration, compiled",
    )
}

LEFT_OUT = {"poisson": ["Adam, compiled"]}
"""Its loss differentiates a network, and `torch.compile` of a loss has no second derivative."""


def start(workload: str, batch_size: int | None = None) -> Play:
    """Return a workload's game with one batch."""
    play = WORKLOADS[workload].start(batch_size)
    batch = play.draw(torch.Generator().manual_seed(1))
    # `play.loss` already holds the networks. They are the ones whose parameters the compiled
    # program replaces, so the network arguments are not needed.
    networks = play.min_player, play.max_player
    return Play(networks, batch, lambda _min, _max, *given: play.loss(given))


def main(words: list[str] | None = None) -> None:
    """Measure, write the results and print the table."""
    parser = arguments(__doc__, rounds=9, out=RESULT)
    parser.add_argument("--workloads", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--batch-size", type=int, help="default: the workload's")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    result = read_result(options.out, {"workloads": {}})
    result.pop("conditions", None)
    result["rounds"] = options.rounds
    for workload in options.workloads:
        play = partial(start, workload, options.batch_size)
        name = WORKLOADS[workload].name
        steps = {key: s for key, s in STEPS.items() if key not in LEFT_OUT.get(workload, ())}
        result["workloads"][name] = measure(play, options.rounds, steps, name)
        write_result(options.out, result)
    print(table(result["workloads"]))


if __name__ == "__main__":
    main()
