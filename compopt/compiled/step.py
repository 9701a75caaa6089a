"""The function that turns a step into one program."""

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
        optimizer: the optimizer.
        networks: the networks that the loss takes.
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
            inputs: the arguments of ``loss_fn`` after the networks.

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

    Loss, gradients, products, solver and moves become one function, instead of thousands of
    operations that Python launches one by one. Parameters and state remain those of the optimizer:
    checkpoints, eager steps in between and schedulers work as before, and on the CPU hooks on
    ``step`` too. The moves are the same up to rounding.

    On the CPU the step is traced and compiled by a backend of ``torch.compile``, at the first call
    and whenever anything but tensor values changes: shapes and dtypes of inputs, inputs that are
    not tensors, ``train()`` and ``eval()``, hyperparameters other than ``lr``, the solver, which
    parameters require gradients. Compiling takes seconds to minutes; more than eight programs are
    an error. On a GPU the eager step is captured as a device graph, after three eager steps.

    ``loss_fn`` runs in Python only until it is traced or captured. Later steps repeat its tensor
    operations alone, along the branches that were taken then.

    Args:
        optimizer: a :class:`~compopt.CGD` or :class:`~compopt.ACGD` with a fixed count of
            iterations, such as ``solver=ConjugateGradient(rtol=0.0, max_iter=1)``. A device graph
            needs ``capturable=True``, and ``lr`` as a tensor on the device.
        loss_fn: ``loss_fn(*networks, *inputs)`` returns what a step takes: a loss, a pair, a
            :class:`~compopt.Game` with penalties, or :class:`~compopt.MicroBatches` of these.
        networks: modules that contain all parameters of the optimizer. Their buffers, such as the
            statistics of BatchNorm, are updated as in an eager step.
        mode: "program" or "graph"; "auto" chooses the one for the parameters' device; "eager" takes
            the plain step, for scripts that run everywhere.
        backend: a backend of ``torch.compile``. ``"aot_eager"`` traces the step without compiling
            it.

    Returns:
        A function of the inputs that takes a step and returns the detached loss, or pair of losses.
        Inputs are tensors, numbers, strings, and tuples, lists and dictionaries of them.

    Raises:
        TypeError, ValueError: if the step cannot be one program, because of a solver with a
            tolerance, ``process_group``, a positive definite ``mirror`` or parameters that no
            network contains. The message says what to use instead.
        RuntimeError: from the step, if ``loss_fn`` reads values or uses tensors that are neither
            inputs nor parts of the networks, or if the step needs more than eight programs.
        StepError: from the step, as from an eager one. Any error leaves parameters and state
            unchanged.

    Note:
        ``optimizer.last_step`` is set as by an eager step. Each step draws new random numbers, but
        a compiled step draws others than an eager one. A loss multiplied by the scale of a
        ``GradScaler`` and products that are zero are not detected.

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
    copied; a graph holds the memory of a step as long as it exists.
    """
    # Imported only here: tracing imports much of torch.
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
