"""Whole steps with the Triton backend, interpreted, against those with torch."""

import numpy as np
import pytest
from cases import CASES
from dense import assert_close

from compopt import ACGD, CGD, ConjugateGradient


def run(optimizer_class, case, backend, steps, **options):
    game = CASES[case]()
    optimizer = optimizer_class(
        game.min_params, game.max_params, lr=0.01, backend=backend, **options
    )
    for _ in range(steps):
        optimizer.step(game)
    params = [*game.min_params, *game.max_params]
    return [param.detach().clone() for param in params], optimizer.last_step


TOLERANCE = {"solver": ConjugateGradient(rtol=1e-6, max_iter=50), "warm_start": True}
FIXED = {"solver": ConjugateGradient(rtol=0.0, max_iter=2), "capturable": True}


@pytest.mark.parametrize(
    ("optimizer_class", "case", "steps", "options"),
    [
        (ACGD, "mlp-gan", 8, TOLERANCE),
        (ACGD, "mlp-gan", 3, FIXED),
        (ACGD, "conv-gan-channels-last", 2, FIXED),
        (CGD, "wgan", 3, TOLERANCE),
    ],
    ids=["acgd", "acgd-fixed", "acgd-channels-last", "cgd"],
)
def test_steps_follow_torch(optimizer_class, case, steps, options):
    expected, plain = run(optimizer_class, case, "torch", steps, **options)
    # Division by zero in a branch that is not taken: a device says nothing about it.
    with np.errstate(all="ignore"):
        actual, report = run(optimizer_class, case, "triton", steps, **options)
    assert report.num_iter == plain.num_iter
    assert report.status is plain.status
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, 1e-6)
