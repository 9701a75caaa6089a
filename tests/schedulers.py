"""All schedulers of torch, for an optimizer of two groups."""

from typing import Any

from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

NUM_STEPS = 50

SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, [lambda t: 0.9**t, lambda t: 1 / (1 + t)]),
    "MultiplicativeLR": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda t: 0.95),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, step_size=7, gamma=0.5),
    "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, milestones=[5, 25], gamma=0.3),
    "ConstantLR": lambda opt: lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=10),
    "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, start_factor=0.1, total_iters=20),
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, gamma=0.9),
    "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
        opt,
        [lr_scheduler.LinearLR(opt, total_iters=5), lr_scheduler.ExponentialLR(opt, gamma=0.9)],
        milestones=[10],
    ),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=20),
    "ChainedScheduler": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(opt, total_iters=4), lr_scheduler.ExponentialLR(opt, gamma=0.9)]
    ),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=3),
    "CyclicLR": lambda opt: lr_scheduler.CyclicLR(
        opt, base_lr=0.01, max_lr=[0.1, 0.2], step_size_up=8, cycle_momentum=False
    ),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=9),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(
        opt, max_lr=[0.1, 0.2], total_steps=NUM_STEPS + 1, cycle_momentum=False
    ),
    "PolynomialLR": lambda opt: lr_scheduler.PolynomialLR(opt, total_iters=30, power=2.0),
    "SWALR": lambda opt: SWALR(opt, swa_lr=[0.01, 0.02], anneal_epochs=10),
}


def advance(scheduler: Any, metric: float) -> None:
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(metric)
    else:
        scheduler.step()
