"""Create the protocol of the final runs: the best trial of each method, with new seeds."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from benchmarks.cifar10.protocol import Protocol
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

    The trials also decide what is compared: each competitive method with its control and
    with the gradient penalty, and the best one with the best explicit term.

    Args:
        protocol: protocol of the searches.
        results: stored cells, including trials.
    """
    run = asdict(protocol.run)
    run["budget"] *= LONGER
    run["evaluation"]["endpoint_metrics"] = JUDGES
    metric = run["evaluation"]["metrics"][0]
    chosen: dict[str, tuple[float, dict[str, Any]]] = {}
    for search in protocol.searches:
        for loss, optimizer, term in search:
            method = f"{optimizer}_{loss}_{term}"
            trials = [r for r in results if r.is_trial and r.method == method]
            if len(trials) < search.trials:
                continue
            distances = [_distance(trial, metric) for trial in trials]
            options, term_options = search.changes(trials[int(np.argmin(distances))].run["choices"])
            table = {"optimizers": [optimizer + TUNED], "losses": [loss], "terms": [term]}
            table |= {"seeds": SEEDS, "options": options, "term_options": term_options}
            chosen[f"{optimizer}{TUNED}_{loss}_{term}"] = min(distances), table
    pairs = _pairs({method: distance for method, (distance, _) in chosen.items()})
    # What is compared runs first.
    order = dict.fromkeys([*(name for pair in pairs for name in pair), *chosen])
    tables = [chosen[method][1] for method in order]
    optimizers = dict.fromkeys(name for table in tables for name in table["optimizers"])
    terms = dict.fromkeys(name for table in tables for name in table["terms"])
    return {
        "description": "The best trial of each method: eight fresh seeds, twice the budget",
        "run": run,
        "optimizers": {
            name: asdict(protocol.optimizers[name.removesuffix(TUNED)]) for name in optimizers
        },
        "terms": {name: asdict(protocol.terms[name]) for name in terms},
        "tables": tables,
        "contrasts": [list(pair) for pair in pairs],
    }


def _distance(trial: Result, metric: str) -> float:
    """Return the mean log distance at the end, infinite for a trial without one."""
    value = trial.endpoint(metric)
    return math.inf if value is None else value


def _pairs(distances: dict[str, float]) -> list[tuple[str, str]]:
    """Return the methods to compare, given the best distance of each."""
    implicit = [name for name in distances if name.startswith("acgd")]
    explicit = [name for name in distances if not name.endswith("_none")]
    best = min(implicit, key=lambda name: distances[name], default="")
    pairs = [
        (name, other)
        for name in implicit
        for other in (name.replace("acgd", "control"), *explicit)
        if other.startswith("control") or other.endswith("_wgan-gp")
    ]
    pairs += [(best, min(explicit, key=lambda name: distances[name], default=""))]
    return [pair for pair in dict.fromkeys(pairs) if all(name in distances for name in pair)]


def write_choice(file: Path, protocol: Protocol, results: Sequence[Result]) -> list[str]:
    """Write the final protocol; return the names of its methods."""
    chosen = choose(protocol, results)
    note = "# Made by `python -m benchmarks.cifar10 choose` from the stored trials.\n"
    file.write_text(note + OmegaConf.to_yaml(OmegaConf.create(chosen)))
    return [f"{t['optimizers'][0]}, {t['losses'][0]}, {t['terms'][0]}" for t in chosen["tables"]]
