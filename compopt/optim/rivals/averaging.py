"""Averages of parameters over the steps of a run."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compopt._checks import check_decay_rate


def averaged(
    module: nn.Module, *, decay: float | None = None, use_buffers: bool = False
) -> AveragedModel:
    """Return a copy of ``module`` that averages its parameters over steps.

    Iterates of a game that rotate around a solution average out to it. Call
    ``average.update_parameters(module)`` after each step; ``average.module`` holds the average.

    Args:
        module: a player's network. Not modified.
        decay: None for the uniform average of all updates; a number in [0, 1) for the exponential
            average, ``average = decay average + (1 - decay) parameters``.
        use_buffers: whether to average buffers as well, such as those of batch normalization.
            Otherwise they are copied once, at the start.

    Returns:
        The average, before its first update.

    Example:
        >>> generator = nn.Linear(2, 1)
        >>> average = averaged(generator, decay=0.99)
        >>> average.update_parameters(generator)
    """
    if decay is None:
        return AveragedModel(module, use_buffers=use_buffers)
    check_decay_rate("decay", decay)
    return AveragedModel(
        module,
        multi_avg_fn=get_ema_multi_avg_fn(decay),  # type: ignore[no-untyped-call]
        use_buffers=use_buffers,
    )
