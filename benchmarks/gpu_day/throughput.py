"""Steps a second of several processes on one device: ``python -m benchmarks.gpu_day.throughput``.

Small networks leave most of a large device idle, so several cells may run side by side. Each
process plays a game of its own; all begin together and stop after the same time.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import multiprocessing

from benchmarks.contestants import CONTESTANTS
from benchmarks.harness import arguments, device_of, write_result
from benchmarks.step_cost import WARM_UP, Run, take_steps
from benchmarks.workloads import WORKLOADS


def _play(
    key: str,
    workload: str,
    device: torch.device,
    batch_size: int | None,
    seconds: float,
    barrier: Any,
    counts: Any,
) -> None:
    torch.set_num_threads(1)
    try:
        run = Run(key, workload, device, batch_size)
        take_steps(run, WARM_UP + 1)
    except BaseException:
        # The others would wait for this one.
        barrier.abort()
        raise
    barrier.wait(timeout=120)
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        run.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        count += 1
    counts.put(count)


def steps_per_second(
    key: str,
    workload: str,
    device: torch.device,
    processes: int,
    seconds: float,
    batch_size: int | None = None,
) -> list[float]:
    """Return the steps a second of each process.

    Raises:
        RuntimeError: if a process fails.
    """
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(processes), context.SimpleQueue()
    arguments = (key, workload, device, batch_size, seconds, barrier, counts)
    workers = [context.Process(target=_play, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError(f"A process of {CONTESTANTS[key].name} failed; its error is above.")
    return [counts.get() / seconds for _ in workers]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write a data file."""
    parser = arguments(__doc__, device=True)
    parser.add_argument("--optimizers", nargs="+", choices=CONTESTANTS, required=True)
    parser.add_argument("--workload", choices=WORKLOADS, default="dcgan")
    parser.add_argument("--batch-size", type=int, help="default: the workload's")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    args = parser.parse_args(argv)
    device, rows = device_of(parser, args), []
    for processes in args.processes:
        for key in args.optimizers:
            rates = steps_per_second(
                key, args.workload, device, processes, args.seconds, args.batch_size
            )
            row = {"optimizer": CONTESTANTS[key].name, "processes": processes, "rates": rates}
            print(f"{row['optimizer']}, {processes} at once: {sum(rates):.1f} steps a second")
            rows.append(row)
            # What is measured already outlives what fails later.
            write_result(args.out, {"workload": args.workload, "rows": rows})


if __name__ == "__main__":
    main()
