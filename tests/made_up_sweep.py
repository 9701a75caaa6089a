"""Folders of runs with made-up figures, in the form that the CIFAR-10 benchmark writes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KINDS = {"acgd": "acgd", "adam": "adam-simultaneous", "adam-5-critic": "adam-alternating"}
FLOORS = {"fd_cifar10net_v1": 0.0077, "fd_effnetlite0_r96_p320": 20.0, "cs_cifar10net_v1": 6.64}
CEILINGS = {"fd_cifar10net_v1": 7.96, "fd_effnetlite0_r96_p320": 2822.0, "cs_cifar10net_v1": 1.27}


def config_of(optimizer: str, loss: str, term: str, seed: int, **more: Any) -> dict[str, Any]:
    """Return the hyperparameters of a run."""
    return {
        "name": f"{optimizer}_{loss}_{term}_seed{seed}",
        "optimizer_name": optimizer,
        "term_name": term,
        "network": {"kind": "dcgan", "width": 0.25, "latent_size": 128},
        "optimizer": {"kind": KINDS.get(optimizer, "adam-simultaneous"), "lr": 1e-4},
        "loss": loss,
        "term": {"kind": term, "options": {}},
        "seed": seed,
        "steps": 3000,
        "budget": None,
        "batch_size": 64,
    } | more


def evaluation(step: int, quality: float, *, n: int = 2000, **more: Any) -> dict[str, Any]:
    """Return a row of evaluations; ``quality`` is the first distance."""
    return {
        "step": step,
        "seconds": 0.1 * step,
        "gradient_calls": 2 * step,
        "mixed_products": 4 * step,
        "num_iter": 2 * step,
        "generator": "raw",
        "final": False,
        "n": n,
        "metrics": {
            "fd_cifar10net_v1": quality,
            "fd_effnetlite0_r96_p320": 200 * quality,
            "cs_cifar10net_v1": 7 / (1 + quality / 3),
            "recall_cifar10net_v1": 1 / (1 + quality),
            "duplicates": 0.0,
        },
        "floors": FLOORS,
        "floor_stds": dict.fromkeys(FLOORS, 0.001),
        "ceilings": CEILINGS,
        "weights_sha256": {"cifar10net_v1": "ec10c506"},
        "protocol": {
            "reference": "train",
            "reference_n": 50000,
            "reference_sha256": "704cc6b1",
            "floor_n": n,
            "floor_draws": 5,
        },
    } | more


def write_run(
    sweep: Path,
    config: Mapping[str, Any],
    quality: float,
    *,
    state: str = "finished",
    reason: str = "",
    second: float | None = None,
    final_n: int = 10000,
    alarm: bool = False,
) -> Path:
    """Write a run that falls from a distance of 8 to ``quality``; return its folder.

    Args:
        sweep: the folder of the sweep.
        config: from `config_of`.
        quality: the last `fd_cifar10net_v1`.
        state, reason: of the status; only a finished run gets a final evaluation.
        second: the last `fd_effnetlite0_r96_p320`, 200 times ``quality`` if not given.
        final_n: images of the final evaluation.
        alarm: whether the collapse monitor raises one.
    """
    path = sweep / "cells" / config["name"]
    (path / "samples").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"run": config, "data": {"source": "CIFAR-10"}}))
    competitive = config["optimizer"]["kind"] == "acgd"
    pace = 0.1 if competitive else 0.03
    last = config["steps"] if state == "finished" else config["steps"] // 2
    steps = [step for step in range(0, config["steps"] + 1, 500) if step <= last]
    random = np.random.default_rng(config["seed"])
    evaluations, spectra, log = [], [], []
    for step in steps:
        now = quality + (8 - quality) * math.exp(-step / 600)
        costs = {"seconds": pace * step, "mixed_products": 4 * step if competitive else 0}
        for generator, factor in (("raw", 1.0), ("ema", 0.9)):
            evaluations.append(evaluation(step, now * factor, generator=generator, **costs))
        # A convolution, one that collapses, and a linear layer with a single singular value.
        fall = 0.3 if alarm and step > 1500 else 0.8
        layers = {
            "conv.0": np.linspace(1, 0.4, 8).tolist(),
            "conv.2": (fall ** np.arange(16)).tolist(),
            "linear": [1.0],
        }
        spectra.append({"step": step, "layers": layers, "alarms": []})
        if step:
            row = {"step": step, "value": 0.1, "gradient_calls": 2 * step, "num_iter": 2 * step}
            log.append(row | costs | {"memory_mib": 900.0})
    if state == "finished":
        for generator, factor in (("raw", 1.0), ("ema", 0.9)):
            more = {"final": True, "generator": generator, "seconds": pace * last}
            row = evaluation(last, quality * factor, n=final_n, **more)
            if second is not None:
                row["metrics"]["fd_effnetlite0_r96_p320"] = second * factor
            evaluations.append(row)
    for name, rows in (("evaluations", evaluations), ("spectra", spectra), ("log", log)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        # As after `kill -9` in the middle of a line.
        (path / f"{name}.jsonl").write_text(lines + '{"step": 99')
    pixels = random.integers(0, 256, (8 * 34 + 2, 8 * 34 + 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "samples" / f"step_{last:07d}_raw.png")
    status = {"state": state, "step": last, "steps": config["steps"], "reason": reason}
    (path / "status.json").write_text(json.dumps(status))
    environment = [{"from_step": 0, "processor": "a processor", "threads": 1, "torch": "2.13.0"}]
    (path / "environment.json").write_text(json.dumps(environment))
    return path


def write_sweep(sweep: Path) -> Path:
    """Write a sweep with all that may happen to a run; return its folder."""
    cells = []

    def run(optimizer: str, loss: str, term: str, seed: int, quality: float, **more: Any) -> None:
        config = config_of(optimizer, loss, term, seed)
        cells.append(config)
        write_run(sweep, config, quality, **more)

    terms = {"none": 3.0, "wgan-gp": 1.2, "dragan": 1.4, "spectral-norm": 1.3, "srgan": 1.5}
    for loss in ("wgan", "bce"):
        for term, quality in terms.items():
            seeds = (0, 1, 2) if term in ("none", "wgan-gp") else (0,)
            for seed in seeds:
                run("adam", loss, term, seed, quality + 0.05 * seed)
                if (loss, term) != ("bce", "srgan"):
                    run("acgd", loss, term, seed, 0.9 + 0.03 * seed, alarm=term == "srgan")
    run("adam", "wgan", "diversity", 0, 7.8)
    run("acgd", "wgan", "diversity", 0, 2.0, state="diverged", reason="The value is nan.")
    run("adam", "bce", "advas", 0, 2.0, state="failed", reason="OSError: <no> space & more")
    run("acgd", "bce", "advas", 0, 2.0, state="running")
    run("adam-lr1e-3", "wgan", "none", 0, 2.5)
    cells.append(config_of("acgd", "wgan", "advas", 0))
    sweep.joinpath("sweep.json").write_text(json.dumps({"description": "Made up.", "cells": cells}))
    return sweep
