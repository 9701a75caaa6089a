"""Launches and torch operations of whole ACGD steps, in a dry run. Prints them as JSON.

The results of a dry run are garbage, so the steps have a fixed iteration count and judge nothing.
"""

import contextlib
import json
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.kernels.dry_run import dry_run
from compopt import ACGD, ConjugateGradient
from compopt.kernels.lists.tables import Place


class Operations(TorchDispatchMode):
    """Notes operations that move data or read a value on the host."""

    def __init__(self):
        super().__init__()
        self.names = []
        self.reads = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            self.reads.append(name)
        elif not func.is_view and name != "promote_types" and "record_function" not in name:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class Watched(ACGD):
    """Notes what happens between the gradients and the solver."""

    def _set_up(self, *given):
        self.solver.begin()
        return super()._set_up(*given)


class Announcing(ConjugateGradient):
    """Says when it is called, and how far a dry run has come then."""

    def begin(self):
        object.__setattr__(self, "operations", Operations())
        object.__setattr__(self, "launches_before", len(self.run.launches) if self.run else 0)
        self.operations.__enter__()

    def solve_coupled(self, *args, **kwargs):
        self.operations.__exit__(None, None, None)
        if self.run:
            object.__setattr__(self, "set_up", self.run.names[self.launches_before :])
        return super().solve_coupled(*args, **kwargs)


def in_capture(vector):
    """Return the place of a launch as in the capture of a device graph."""
    return Place(vector.device, stream=7, capturing=True)


def steps(run, *, capturable, solve_for, count=4):
    """Take steps, the last as in a capture; return its set-up, and launches and reads of each."""
    generator = nn.Sequential(nn.Linear(8, 40), nn.Tanh(), nn.Linear(40, 8))
    critic = nn.Sequential(nn.Linear(8, 60), nn.Softplus(), nn.Linear(60, 1))
    solver = Announcing(rtol=0.0, max_iter=2)
    object.__setattr__(solver, "run", run)
    optimizer = Watched(
        generator.parameters(),
        critic.parameters(),
        solver=solver,
        solve_for=solve_for,
        capturable=capturable,
        backend="triton" if run else "torch",
    )
    # Results are garbage, so no step would be taken, and leave a state.
    optimizer.step()
    z, real = torch.zeros(4, 8), torch.zeros(4, 8)
    launches, reads = [], []
    with contextlib.ExitStack() as stack:
        for index in range(count):
            if capturable and index == count - 1:
                stack.enter_context(mock.patch.object(Place, "of", in_capture))
            before = len(run.launches) if run else 0
            loss = critic(real).mean() - critic(generator(z)).mean()
            with Operations() as operations:
                optimizer.step(loss)
            reads.append(len(operations.reads))
            if run:
                launches.append([vars(launch) for launch in run.launches[before:]])
    return {
        "set-up launches": getattr(solver, "set_up", None),
        "set-up operations": solver.operations.names,
        "steps": launches,
        "reads": reads,
    }


def main():
    found = {}
    for capturable in (False, True):
        for solve_for in ("min", "max"):
            options = {"capturable": capturable, "solve_for": solve_for}
            key = f"{'captured' if capturable else 'plain'} {solve_for}"
            with dry_run() as run:
                found[key] = steps(run, **options)
            found[f"{key} torch"] = steps(None, **options)
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
