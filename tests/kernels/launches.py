"""Launches of whole steps, recorded in a dry run. Prints how many of which kernel."""

import json
from collections import Counter

import torch

from benchmarks.kernels.dry_run import dry_run
from compopt.kernels import (
    CGState,
    adaptive_setup_,
    cg_direction_,
    cg_scalars_,
    cg_update_,
    gather,
    partial_dot,
    scatter,
    use_backend,
)


def one_iteration(n=5000, m=3000):
    x, r, p, q = (torch.zeros(n) for _ in range(4))
    y, t = torch.zeros(m), torch.zeros(m)
    state = CGState(torch.ones(()))
    curvature = partial_dot(p, q)
    square = cg_update_(x, y, r, p, t, q, curvature, state)
    cg_scalars_(state, curvature, square)
    cg_direction_(p, r, state)


def setup(n=5000, m=3000):
    for size, has_root in ((n, True), (m, False)):
        vectors = [torch.zeros(size) for _ in range(5)]
        average, grad, step_sizes, root, scaled = vectors
        adaptive_setup_(
            average, grad, 0.99, 0.1, 1e-5, step_sizes, root if has_root else None, scaled
        )


def product():
    shapes = [torch.Size(shape) for shape in ((64, 32), (64,), (8, 64), (8,))]
    sizes = [shape.numel() for shape in shapes]
    vector, out = torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
    gather(scatter(vector, shapes, [torch.float32] * 4, vector), shapes, out, vector, vector)


def record(function):
    with dry_run() as run, use_backend("triton"):
        function()
    return run


def main():
    found = {"numbers": {}, "vectors": {}}
    for function in (one_iteration, setup, product):
        run = record(function)
        found["numbers"][function.__name__] = dict(Counter(run.names))
        for launch in run.launches:
            pointers = [
                name for name, kind in launch.signature.items() if str(kind).startswith("*")
            ]
            found["vectors"][launch.name] = {
                "aligned": all(name in launch.divisible for name in pointers),
                "shared_bytes": launch.shared_bytes,
                "signature": launch.signature,
            }
    try:
        with use_backend("triton"):
            one_iteration()
    except RuntimeError as error:
        found["without a driver"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
