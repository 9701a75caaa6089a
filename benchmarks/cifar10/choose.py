"""Create the protocol of the final runs: the best trial of each method, with new seeds."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.cifar10.protocol import Protocol
from benchmarks.cifar10.search import Search
from benchmarks.cifar10.stored import Result

TUNED = "-tuned"
"""Ends the names of tuned optimizers, beside those of the untuned contrasts."""
SEEDS = [8, 9, 10, 11, 12, 13, 14, 15]
"""Neither those of the trials nor those of the untuned contrasts."""
LONGER = 2
"""The budget of a final run over that of a trial."""
JUDGES = ["fd_effnetlite0_r96_p320"]
"""The distance that the final runs are tested on; the trials are chosen by another one."""


def choose(protocol: Protocol, results: Sequence[Result]) -> dict[str, Any]:
    """Return the final protocol for the methods whose trials are all done.

    Args:
        protocol: protocol of the searches.
        results: stored cells, including trials.
    """
    run = asdict(protocol.run)
    run["budget"] *= LONGER
    run["evaluation"]["endpoint_metrics"] = JUDGES
    optimizers, tables = {}, []
    for search in protocol.searches:
        for loss, optimizer, term in search:
            best = _best(search, [r for r in results if r.method == f"{optimizer}_{loss}_{term}"])
            if best is None:
                continue
            options, term_options = search.changes(best.run["choices"])
            optimizers[optimizer + TUNED] = asdict(protocol.optimizers[optimizer])
            table = {"optimizers": [optimizer + TUNED], "losses": [loss], "terms": [term]}
            table |= {"seeds": SEEDS, "options": options, "term_options": term_options}
            tables.append(table)
    methods = [f"{t['optimizers'][0]}_{t['losses'][0]}_{t['terms'][0]}" for t in tables]
    pairs = [(name, name.replace("acgd", "control")) for name in methods if "acgd" in name]
    return {
        "description": "The best trial of each method: eight fresh seeds, twice the budget",
        "run": run,
        "optimizers": optimizers,
        "terms": {t["terms"][0]: asdict(protocol.terms[t["terms"][0]]) for t in tables},
        "tables": tables,
        "contrasts": [list(pair) for pair in pairs if pair[1] in methods],
    }


def _best(search: Search, results: Sequence[Result]) -> Result | None:
    trials = [r for r in results if r.is_trial and r.metrics]
    metric = next(iter(trials[0].metrics)) if trials else ""
    found = [(value, r) for r in trials if (value := r.endpoint(metric)) is not None]
    return min(found, key=lambda pair: pair[0])[1] if len(found) == search.trials else None


def write_choice(file: Path, protocol: Protocol, results: Sequence[Result]) -> list[str]:
    """Write the final protocol; return the names of its methods."""
    chosen = choose(protocol, results)
    note = "# Made by `python -m benchmarks.cifar10 choose` from the stored trials.\n"
    file.write_text(note + OmegaConf.to_yaml(OmegaConf.create(chosen)))
    return [f"{t['optimizers'][0]}, {t['losses'][0]}, {t['terms'][0]}" for t in chosen["tables"]]
