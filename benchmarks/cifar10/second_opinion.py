"""Judge finished runs by metrics too expensive for every cell, or unavailable where it ran."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track

from benchmarks.cifar10 import checkpoint
from benchmarks.cifar10.averaging import sample
from benchmarks.cifar10.data import Images, load_images
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import OPINIONS, RunFolder
from benchmarks.cifar10.judge import Judge
from benchmarks.cifar10.parallel import Ranks
from benchmarks.cifar10.sweep import Sweep
from benchmarks.cifar10.training import Training


def judge_again(
    sweep: Sweep,
    metrics: Sequence[str],
    count: int,
    *,
    generators: Sequence[str] = ("raw", "ema"),
    data: Path | None = None,
    cells: Sequence[str] | None = None,
) -> int:
    """Judge the last networks of finished runs; return how many runs were judged now.

    The images are the first of those that the run itself was judged by. Runs judged already are
    left alone, so the call goes on where it was interrupted.

    Args:
        sweep: whose runs.
        metrics: names of ``benchmarks.metrics.METRICS``.
        count: images of each generator.
        generators: "raw" for the trained one, "ema" for its average.
        data: folder of the real images.
        cells: only these; all if None.

    Raises:
        BenchmarkError: if a metric or cell is unknown, or a checkpoint is damaged.
    """
    images = load_images(data)
    Judge(images).check(count, list(metrics))
    unknown = sorted(set(cells or ()) - set(sweep.cells))
    if unknown:
        raise BenchmarkError(f"There are no cells {unknown} in {sweep.path}.")
    waiting = [
        name
        for name in cells or sweep.cells
        if sweep.status(name)["state"] == "finished"
        and not _is_judged(sweep.folder(name), metrics, count, generators)
    ]
    sizes = {sweep.config(name).network.image_size for name in waiting}
    resized = {size: images.resized(size) for size in sizes}
    judges = {size: Judge(resized[size]) for size in sizes}
    for name in track(waiting, description="runs judged"):
        size = sweep.config(name).network.image_size
        _judge(sweep, name, judges[size], resized[size], list(metrics), count, generators)
    return len(waiting)


def _is_judged(path: Path, metrics: Sequence[str], count: int, generators: Sequence[str]) -> bool:
    rows = RunFolder(path).rows(OPINIONS)
    for row in rows:
        if row["n"] != count:
            raise BenchmarkError(
                f"{path} was judged by {row['n']} images, so all runs must be; got {count}. Use "
                f"`--images {row['n']}`, or remove the files {OPINIONS} to judge all anew."
            )
    of = {
        g: {m for row in rows if row["generator"] == g for m in row["metrics"]} for g in generators
    }
    return all(set(metrics) <= found for found in of.values())


def _judge(
    sweep: Sweep,
    name: str,
    judge: Judge,
    images: Images,
    metrics: list[str],
    count: int,
    generators: Sequence[str],
) -> None:
    config, path = sweep.config(name), sweep.folder(name)
    torch.set_num_threads(config.threads)
    state = checkpoint.load(path)
    if state is None:
        raise BenchmarkError(f"{path} has no checkpoint to judge. Run the cell again.")
    training = Training(config, images.train, Ranks())
    training.load_state_dict(state["training"])
    trained = {"raw": training.generator, "ema": training.ema.module}
    for which in generators:
        made = sample(
            trained[which], count, seed=config.seed, norm_images=config.evaluation.norm_images
        )
        row = {"step": training.step, "generator": which, **judge.scores(made, metrics)}
        RunFolder(path).append(OPINIONS, row)
