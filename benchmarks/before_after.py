"""Cost of a step before and after a change, measured in one interleaved run.

    python -m benchmarks.before_after REVISION                  all games
    python -m benchmarks.before_after REVISION --games tiny small --rounds 20

Two processes, one with the files of REVISION and one with the current files, take steps of the same
game in turn. The table compares medians of processor time; each process measures its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {
    "default": {},
    "one iteration": {"rtol": 0.0, "max_iter": 1},
    "warm start": {"warm_start": True},
}
"""Ways to step ACGD; what is not of the optimizer goes to its solver."""
GAMES = ("tiny", "small", "dcgan", "resnet", "poisson")


def _tiny() -> tuple[nn.Module, nn.Module, Callable[[], Tensor], float]:
    """Return a game whose step mostly runs the package's own Python code."""
    torch.manual_seed(0)
    generator, critic = (
        nn.Sequential(nn.Linear(i, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, o))
        for i, o in ((8, 2), (2, 1))
    )
    real, noise = torch.randn(64, 2), torch.randn(64, 8)
    return generator, critic, lambda: critic(real).mean() - critic(generator(noise)).mean(), 1e-4


def _game(name: str) -> tuple[nn.Module, nn.Module, Callable[[], Tensor], float]:
    if name == "tiny":
        return _tiny()
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[name]
    play = workload.start()
    losses = play.losses(0)
    return play.min_player, play.max_player, lambda: next(losses), workload.lr


def serve() -> None:
    """Answer each input line "game option count" with the seconds of a step."""
    from compopt import ACGD, ConjugateGradient

    torch.set_num_threads(1)
    steppers: dict[tuple[str, str], Callable[[], object]] = {}
    for line in sys.stdin:
        game, option, count = json.loads(line)
        if (game, option) not in steppers:
            generator, critic, loss, lr = _game(game)
            options = dict(OPTIONS[option])
            given = {key: options.pop(key) for key in ("rtol", "max_iter") if key in options}
            solver = ConjugateGradient(**given) if given else None
            optimizer = ACGD(
                generator.parameters(), critic.parameters(), lr=lr, solver=solver, **options
            )
            steppers[game, option] = lambda o=optimizer, f=loss: o.step(f())
        start = time.process_time()
        for _ in range(count):
            steppers[game, option]()
        print((time.process_time() - start) / count, flush=True)


def _start(tree: Path) -> "subprocess.Popen[str]":
    # Both processes run this file, each with the package of its own tree.
    code = f"import sys; sys.path[:0] = [{str(tree)!r}]; import runpy; "
    code += f"runpy.run_path({__file__!r})['serve']()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tree,
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
    )


def _ask(process: "subprocess.Popen[str]", game: str, option: str, count: int) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([game, option, count]) + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def compare(revision: str, games: list[str], rounds: int, console: Console) -> Table:
    """Return a table of the ratios of all games and options."""
    table = Table("game", "ACGD", "before, ms", "after, ms", "ratio")
    # Imported here, because the old revision also runs this file and may not have the harness.
    from benchmarks.harness import in_turns, ratios

    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(tree), revision], check=True)
        processes = [_start(tree), _start(ROOT)]
        try:
            for game in games:
                for option in OPTIONS:
                    count = 20 if game == "tiny" else 1
                    for process in processes:
                        _ask(process, game, option, 3)
                    works = {p: partial(_ask, p, game, option, count) for p in processes}
                    # The clock returns the time that the process measured itself.
                    times = in_turns(works, rounds, seconds=lambda ask: ask())
                    before, after = map(median, times.values())
                    ratio = median(ratios(*reversed(times.values())))
                    row = (f"{1e3 * before:.2f}", f"{1e3 * after:.2f}", f"{ratio:.3f}")
                    table.add_row(game, option, *row)
                    console.print(f"{game}, {option}: {ratio:.3f}")
        finally:
            for process in processes:
                process.kill()
                process.wait()
            subprocess.run([*git, "remove", "--force", str(tree)], check=False)
    return table


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before_after", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("revision", help="of git, before the change")
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=GAMES)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    console = Console()
    console.print(compare(args.revision, args.games, args.rounds, console))


if __name__ == "__main__":
    main()
