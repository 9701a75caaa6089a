"""Runs of an example under torchrun, with ranks killed on the way."""

import os
import random
import signal
import sys
import time
from pathlib import Path

from forked import Forked

ROOT = Path(__file__).resolve().parent.parent
NUM_RANKS = 2


def start(out: Path, num_steps: int, max_restarts: int) -> Forked:
    """Start the example under torchrun; its ranks are new interpreters."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(NUM_RANKS), "--max-restarts", str(max_restarts)),
        *("--monitor-interval", "0.1"),
        *(str(ROOT / "examples" / "distributed_gan.py"), "--steps", str(num_steps)),
        *("--batch", "16", "--out", str(out)),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    with (out / "log").open("w") as log:
        return Forked(command, env=environment, stdout=log)


def kill_one(out: Path, randomness: random.Random) -> None:
    """Wait until all ranks train, and a random moment more; kill one of them."""
    files = [out / f"rank{rank}.pid" for rank in range(NUM_RANKS)]
    deadline = time.monotonic() + 120
    while not all(file.exists() and file.read_text() for file in files):
        if time.monotonic() > deadline:
            raise AssertionError((out / "log").read_text())
        time.sleep(0.02)
    chosen = int(randomness.choice(files).read_text())
    # Those of the processes that are started next take their place.
    for file in files:
        file.unlink()
    time.sleep(0.3 * randomness.random())
    os.kill(chosen, signal.SIGKILL)
