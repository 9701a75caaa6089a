"""The 2-D Poisson equation by physics-informed networks, plain and competitive.

A plain physics-informed network minimises the mean squared residual. In the competitive form a
critic bets on the residual at each point, and the solution network reduces the residual where the
bets are: ``min over u, max over D of mean(D residual)``, a game that only the exact u solves. The
plain network is trained by Adam and by L-BFGS, the game by ACGD and by its general-sum form, which
solves the joint system of both players' losses. All have the same network, points and processor
time. Interrupted runs resume from their last checkpoint.

The paper of the competitive form (https://arxiv.org/abs/2204.11144) reports errors about four
orders of magnitude below the best plain network's, after far more steps. There is no such gap in
150 seconds on one core, where a step of the game with its linear solve costs 45 to 90 Adam steps:
general-sum ACGD ends at a third of Adam's error and nearly twice that of L-BFGS (the curves are in
``benchmarks/results/poisson_pinn``).
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from poisson_methods import SETTINGS, method
from poisson_problem import Residuals, Solution, critic, grid, relative_error
from poisson_report import Record, draw, print_table
from rich.progress import Progress

from compopt import load_checkpoint, save_checkpoint


def train(name: str, args: argparse.Namespace, bar: Callable[..., object]) -> Record:
    """Train from the last checkpoint, if there is one, until the time is used up."""
    torch.manual_seed(args.seed)
    solution, bets = Solution(args.width, 3), critic(args.width, 3)
    residuals, points = Residuals(args.points, args.points // 5), grid()
    optimizer, step = method(name, solution, bets, residuals)
    parts: tuple[Any, ...] = (solution, bets, optimizer)
    record = Record(name, [(0.0, relative_error(solution, points))], 0, solution)
    file = args.out / "checkpoints" / f"{name}.pt"
    if file.exists():
        saved = load_checkpoint(file)
        for part, state in zip(parts, saved["states"], strict=True):
            part.load_state_dict(state)
        record = Record(name, saved["curve"], saved["steps"], solution)
    began = time.process_time() - record.curve[-1][0]
    while record.curve[-1][0] < args.seconds and record.steps < args.max_steps:
        step()
        record.steps += 1
        seconds = time.process_time() - began
        done = seconds >= args.seconds or record.steps == args.max_steps
        if done or seconds > record.curve[-1][0] + args.seconds / 100:
            record.curve.append((seconds, relative_error(solution, points)))
            states = [part.state_dict() for part in parts]
            file.parent.mkdir(parents=True, exist_ok=True)
            saved = {"states": states, "curve": record.curve, "steps": record.steps}
            save_checkpoint(file, saved)
            bar(completed=seconds)
    return record


def main(argv: Sequence[str] | None = None) -> dict[str, Record]:
    """Run the example; return the record of each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150, help="processor time of a curve")
    parser.add_argument("--max-steps", type=int, default=10**9)
    parser.add_argument("--points", type=int, default=400, help="points of the equation")
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=Path("out/poisson_pinn"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    records, dtype = {}, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with Progress() as progress:
        for name in args.methods:
            task = progress.add_task(name, total=args.seconds)
            records[name] = train(name, args, partial(progress.update, task))
    print_table(records)
    draw(records, args.out)
    torch.set_default_dtype(dtype)
    return records


if __name__ == "__main__":
    main()
