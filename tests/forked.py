"""Processes that tests start, forked from one that has imported torch.

A new interpreter would import it for longer than most of these processes work.
"""

import math
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent

# The first optimizer of a process imports torch._dynamo, for longer than torch itself takes.
IMPORTED = ["torch.distributed.checkpoint.state_dict", "torch._dynamo", "compopt"]


def forking() -> ForkServerContext:
    """Return the context of such processes; their server runs nothing, and so may fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


# multiprocessing looks after all its processes where it starts one, and not for several threads.
_LOOKING = threading.Lock()


class Forked:
    """A Python program as `subprocess.Popen` starts it, in a process that is forked.

    Args:
        command: the interpreter, ``-W`` with what to do about warnings or nothing, then ``-m`` with
            a module or ``-c`` with a program, and arguments.
        stdout: the file that takes all it prints.
        env: its environment; that of the tests if None.
        options: others of `subprocess.Popen` that make no difference here.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: IO[Any],
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        assert command[0] == sys.executable, command
        self.returncode: int | None = None
        environment = dict(os.environ if env is None else env)
        arguments = (list(command[1:]), environment, stdout.name)
        self._process = forking().Process(target=_run, args=arguments)
        with _LOOKING:
            self._process.start()

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        with _LOOKING:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        """Return the exit status once it ends."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"It runs for more than {timeout} s.")
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def run_forked(*options: str, output: Path, env: Mapping[str, str] | None = None) -> int:
    """Run Python with ``options`` as `Forked` does; return the exit status."""
    with output.open("w") as stdout:
        return Forked([sys.executable, *options], stdout=stdout, env=env).wait()


def _run(options: list[str], environment: dict[str, str], output: str) -> None:
    with open(output, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    if options[0] == "-W":
        warnings.simplefilter(options[1])  # type: ignore[arg-type]
        options = options[2:]
    kind, program, *arguments = options
    sys.argv = ["-c", *arguments]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c", kind
        exec(program, {"__name__": "__main__"})
