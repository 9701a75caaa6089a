"""Processes that work as the ranks of a gloo group, started once for many scenarios."""

import datetime
import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from forked import forking
from torch import distributed as dist

Scenario = Callable[[Path], Any]
"""What a rank does, given a folder that ranks share; it is a function of a module in tests/."""

LIMIT_S = 300
"""Seconds after which ranks count as hanging. Starting them on a busy machine takes a minute."""


class Failed:
    """What a scenario raised."""

    def __init__(self, error: BaseException) -> None:
        self.kind = type(error).__name__
        self.text = str(error)
        self.trace = "".join(traceback.format_exception(error))


def run_ranks(
    scenarios: Sequence[Scenario],
    num_ranks: int,
    folder: Path,
    *,
    timeout_s: float = 60.0,
    killed: Sequence[int] = (),
    limit_s: float = LIMIT_S,
) -> list[dict[str, Any]]:
    """Run scenarios on ``num_ranks`` processes; return, by rank, what each returned by name.

    All of them must end by themselves and in order, but for those that a scenario kills.
    """
    context = forking()
    workers = [
        context.Process(target=_work, args=(rank, num_ranks, scenarios, folder, timeout_s))
        for rank in range(num_ranks)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=limit_s)
    alive = [worker for worker in workers if worker.is_alive()]
    for worker in alive:
        worker.kill()
    assert not alive, f"{len(alive)} of {num_ranks} ranks did not come to an end."
    codes = {rank: worker.exitcode for rank, worker in enumerate(workers) if rank not in killed}
    assert not any(codes.values()), f"Ranks did not end in order; exit codes: {codes}."
    results = [folder / f"rank{rank}.pt" for rank in range(num_ranks)]
    return [torch.load(path, weights_only=False) if path.exists() else {} for path in results]


def _work(
    rank: int, num_ranks: int, scenarios: Sequence[Scenario], folder: Path, timeout_s: float
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=num_ranks,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    results: dict[str, Any] = {}
    for scenario in scenarios:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                # Raised inside torch.distributed.checkpoint of torch 2.6.
                warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
                results[scenario.__name__] = scenario(folder)
        except Exception as error:
            # The test that asked for it decides whether this is what should happen.
            results[scenario.__name__] = Failed(error)
        # What is done remains if the next one kills this process.
        torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()
