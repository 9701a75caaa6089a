"""The call that makes a step one program."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from compopt._checks import check_choice
from compopt.compiled.checks import check_arguments
from compopt.optim.two_player import TwoPlayerCompetitive

Mode: TypeAlias = Literal["auto", "program", "graph", "eager"]
"""How a compiled step is taken."""

Losses: TypeAlias = Tensor | tuple[Tensor, Tensor]


class CompiledStep(ABC):
    """A step of an optimizer as a function of the inputs of its loss; see :func:`compile`.

    Attributes:
        optimizer: whose step it is.
        networks: that the loss takes.
        mode: how steps are taken: "program", "graph" or "eager".
    """

    mode: Mode

    def __init__(
        self,
        optimizer: TwoPlayerCompetitive,
        loss_fn: Callable[..., Any],
        networks: Sequence[nn.Module],
    ) -> None:
        self.optimizer = optimizer
        self.networks = tuple(networks)
        self._loss_fn = loss_fn

    @abstractmethod
    def __call__(self, *inputs: Any) -> Losses:
        """Take one step.

        Args:
            inputs: what ``loss_fn`` takes after the networks.

        Returns:
            The detached loss, or pair of losses, before the step.
        """

    def _eager_step(self, inputs: tuple[Any, ...]) -> Losses:
        loss: Losses = self.optimizer.step(lambda: self._loss_fn(*self.networks, *inputs))
        return loss


class EagerStep(CompiledStep):
    """The plain step."""

    mode = "eager"

    def __call__(self, *inputs: Any) -> Losses:
        """Take one step."""
        return self._eager_step(inputs)


def compile(  # noqa: A001
    optimizer: TwoPlayerCompetitive,
    loss_fn: Callable[..., Any],
    *networks: nn.Module,
    mode: Mode = "auto",
    backend: str | Callable[..., Any] = "inductor",
) -> CompiledStep:
    """Return the whole step of ``optimizer`` as one program: ``step(*inputs) -> loss``.

    Loss, gradients, products, solver and moves are one function, where an eager step is thousands
    of operations that Python launches one by one. Parameters and state stay those of the
    optimizer: checkpoints, eager steps in between, schedulers and hooks on ``step`` work as
    before, and the moves are the same up to rounding.

    On the CPU the step is traced and compiled by ``torch.compile``, at the first call and whenever
    something else than values of tensors changes: shapes and dtypes of inputs, inputs that are no
    tensors, ``train()`` and ``eval()``, hyperparameters other than ``lr``, the solver, which
    parameters require gradients. That takes from seconds to minutes, and at most eight times. On a
    GPU the eager step is captured as a device graph, after three steps that are taken as usual.

    ``loss_fn`` runs in Python only while it is traced or captured. What it does besides operations
    on tensors is not done again, and what it decides there stays decided.

    Args:
        optimizer: a :class:`~compopt.CGD` or :class:`~compopt.ACGD` with a fixed count of
            iterations, such as ``solver=ConjugateGradient(rtol=0.0, max_iter=1)``. For a device
            graph with ``capturable=True``, and ``lr`` a tensor on the device.
        loss_fn: ``loss_fn(*networks, *inputs)`` returns what a step takes: a loss, a pair, a
            :class:`~compopt.Game` with penalties, or :class:`~compopt.MicroBatches` of these.
        networks: modules that have all parameters of the optimizer. Their buffers, such as the
            statistics of BatchNorm, come out of a step as they would eagerly.
        mode: "program" and "graph" are the two forms; "auto" takes that of the parameters' device;
            "eager" the plain step, for scripts that run everywhere.
        backend: of ``torch.compile``. ``"aot_eager"`` traces the step without compiling it.

    Returns:
        A function of the inputs that takes a step and returns the detached loss, or pair of losses.
        Inputs are tensors, numbers, strings, and tuples, lists and dictionaries of them.

    Raises:
        TypeError, ValueError: if the step cannot be one program, naming what to use instead: a
            solver with a tolerance, ``process_group``, a positive definite ``mirror``, parameters
            that no network has.
        RuntimeError: from the step, if ``loss_fn`` reads values or uses tensors that are neither
            inputs nor parts of the networks, and after more than eight programs.
        StepError: from the step, as eagerly. After any error parameters and state are as before.

    Note:
        ``optimizer.last_step`` is as after an eager step. Random numbers are drawn anew in each
        step, but compiled ones are not those of the eager step. Not looked for are a loss that was
        multiplied by the scale of a ``GradScaler``, and products that are zero.

    Example:
        >>> import compopt, torch
        >>> G, D = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        >>> solver = compopt.ConjugateGradient(rtol=0.0, max_iter=1)
        >>> optimizer = compopt.ACGD(G.parameters(), D.parameters(), solver=solver)
        >>> def loss_fn(G, D, real, noise):
        ...     return D(real).tanh().mean() - D(G(noise)).tanh().mean()
        >>> step = compopt.compile(optimizer, loss_fn, G, D, backend="aot_eager")
        >>> for _ in range(3):
        ...     loss = step(torch.randn(8, 2), torch.randn(8, 2))
        >>> optimizer.last_step.taken
        True

    Cost: see the recipes. Memory: a program returns new parameters and state, which are then
    copied; a graph keeps what a step needs for as long as it lives.
    """
    # Not before somebody asks for it: tracing imports much of torch.
    from compopt.compiled.graph import GraphStep
    from compopt.compiled.program_step import ProgramStep

    check_choice("mode", mode, ("auto", "program", "graph", "eager"))
    check_arguments(optimizer, loss_fn, networks)
    device = optimizer.param_groups[0]["params"][0].device.type
    if mode == "auto":
        mode = "graph" if device == "cuda" else "program"
    if mode == "eager":
        return EagerStep(optimizer, loss_fn, networks)
    if mode == "graph":
        return GraphStep(optimizer, loss_fn, networks)
    return ProgramStep(optimizer, loss_fn, networks, backend)
