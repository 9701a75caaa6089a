"""Where launches go and what they are specialised on, recorded in a dry run. Prints JSON."""

import contextlib
import json
from unittest import mock

import torch

from benchmarks.kernels.dry_run import DryRun, dry_run
from compopt.kernels import (
    CGState,
    cg_scalars_,
    cg_update_,
    linear_tangent,
    partial_dot,
    use_backend,
)


class OnSecondDevice(torch.Tensor):
    """A tensor of the host that says it is on ``cuda:1``."""

    is_cuda = True

    def get_device(self):
        return 1


class Devices:
    """The current device, as torch keeps it, also at launches."""

    def __init__(self):
        self.current = 0
        self.at_launches = set()

    def exchange(self, index):
        if index < 0:
            return -1
        before, self.current = self.current, index
        return before

    def get(self):
        return self.current

    def at_launch(self):
        self.at_launches.add(self.current)
        return 0


def devices_of_launches():
    """Return the current device at launches with tensors of either device, and afterwards."""
    devices, found = Devices(), []
    with (
        mock.patch.object(torch.cuda, "_exchange_device", devices.exchange),
        mock.patch.object(torch.cuda, "_maybe_exchange_device", devices.exchange),
        mock.patch.object(torch.cuda, "current_device", devices.get),
        mock.patch.object(DryRun, "get_current_device", devices.at_launch),
        dry_run(),
        use_backend("triton"),
    ):
        here = torch.zeros(5000)
        there = here.as_subclass(OnSecondDevice)
        for vector in (here, there):
            devices.at_launches.clear()
            partial_dot(vector, vector)
            found += [*devices.at_launches, devices.current]
        with (
            mock.patch.object(DryRun, "get_current_stream", side_effect=ValueError),
            contextlib.suppress(ValueError),
        ):
            partial_dot(there, there)
        return [*found, devices.current]


def iteration(num_partials):
    """Return the launches of an iteration whose curvature comes in so many partial sums."""
    x, r, p, q = (torch.zeros(5000) for _ in range(4))
    state, curvature = CGState(torch.ones(())), torch.zeros(num_partials)
    with dry_run() as run, use_backend("triton"):
        square = cg_update_(x, None, r, p, None, q, curvature, state)
        cg_scalars_(state, curvature, square if num_partials > 1 else curvature)
    return [vars(launch) for launch in run.launches]


def tall_grid(num_rows):
    """Return the grid of a linear layer's tangent with so many rows."""
    x, weight = torch.empty(num_rows, 1), torch.empty(1, 1)
    with dry_run() as run, use_backend("triton"):
        linear_tangent(x, weight, x, weight)
    return run.launches[0].grid


def main():
    found = {
        "devices": devices_of_launches(),
        "iterations": [iteration(count) for count in (5, 1, 16)],
        "tall grid": tall_grid(64 * 65536),
    }
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
