"""Errors and warnings about steps, and checks of solvers."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from compopt._remedies import REACHES_ALL, called, independence
from compopt._warn import warn
from compopt.derivatives import Derivatives
from compopt.kernels._numbers import norm_of_any_size
from compopt.optim.report import ConvergenceWarning, StepError, StepWarning
from compopt.optim.update import Update
from compopt.solvers import GMRES, ConjugateGradient, Solution, Solver, Status

SolveFor: TypeAlias = Literal["min", "max", "alternate", "smaller"]
OnFailure: TypeAlias = Literal["fallback", "skip", "raise"]

LARGEST_GAIN = 3.0
"""Norm of a solution over that of its right-hand side, above which the moves are checked.

In a zero-sum game it is at most one.
"""
LONGEST_MOVE = 4.0
"""Length of both players' moves over that of their plain gradient steps."""

LIMIT_ITERATIONS = (
    " Or limit the iterations on purpose, `solver=ConjugateGradient(rtol=0.0, max_iter=1)`, and "
    "pass terms of one player alone as `min_penalty` or `max_penalty`."
)

APART_WORDS = "The players do not interact: this is gradient descent-ascent."
ZERO_PRODUCTS = (
    "All entries of the first mixed products are zero. If that is not meant, leave out "
    "`detach()` and `no_grad()`, and freeze no network while the loss of the other is computed."
)

INDEPENDENCE, APART, STRETCHED = "independence", "apart", "stretched"
"""Kinds of warnings: a loss that lacks a player, products of zero, a singular system."""


def check_solver(solver: object) -> None:
    """Raise unless ``solver`` is an object with a method ``solve``."""
    if isinstance(solver, type):
        name = solver.__name__
        raise TypeError(f"`solver` must be an object, got the class {name}. Use `{name}()`.")
    if not callable(getattr(solver, "solve", None)):
        raise TypeError(
            f"`solver` must have a method `solve`, got {solver!r}. Use one of compopt.solvers, "
            "such as `ConjugateGradient(rtol=1e-2)`."
        )


def check_shardable(solver: Solver | None) -> None:
    """Raise unless a solver can work on sharded vectors."""
    if solver is not None and not isinstance(solver, ConjugateGradient | GMRES):
        raise TypeError(
            "Sharded vectors need `solver=ConjugateGradient(...)`, or `GMRES(...)` for a pair of "
            f"losses, got {solver!r}, which would take its part of a vector for the whole. Pass "
            "the process group itself, or `compopt.distributed.Replicated(group)`, for whole "
            "vectors on every rank."
        )


class Reporter:
    """Warns of failed, unfinished and doubtful solves, each kind once.

    Attributes:
        watches: True until the first products of a step have been checked.
    """

    def __init__(self) -> None:
        self.watches = True
        self._warned: set[str] = set()

    def report_independence(self, derivatives: Derivatives[Any]) -> None:
        """Warn of a loss that does not depend on the opponent, as after a `detach()`."""
        is_pair = len(derivatives.layouts) == 2 and not derivatives.is_zero_sum
        if INDEPENDENCE in self._warned or not is_pair:
            return
        pairs = derivatives.independent()
        if pairs:
            self.warn_once(INDEPENDENCE, independence(pairs), StepWarning)

    def report_without_gradient(self, derivatives: Derivatives[Any]) -> None:
        """Warn, at the first step, of parameters on which the loss does not depend."""
        for player, places in derivatives.without_gradient.items() if self.watches else ():
            params = derivatives.params[player]
            missing = [place for place in places if params[place].numel()]
            if missing:
                self.warn_once(
                    f"without gradient, {player}",
                    f"{len(missing)} of {len(params)} parameters of {called(player)} have no "
                    f"gradient, the first of them number {missing[0]} of shape "
                    f"{tuple(params[missing[0]].shape)}, and stay as they are. {REACHES_ALL} If "
                    "they have no part in the loss, freeze them: `requires_grad_(False)`.",
                    StepWarning,
                )

    def report_unrelated(self, derivatives: Derivatives[Any]) -> None:
        """Warn if none of several players' losses depends on another player."""
        self.report_independence(derivatives)
        count = len(derivatives.layouts)
        if count > 2 and self.watches and len(derivatives.independent()) == count * (count - 1):
            self.warn_once(
                APART,
                f"{APART_WORDS} No loss depends on another player. If that is not meant, leave out "
                "`detach()` and `no_grad()`. If that is intended, each player's own optimizer "
                "takes the same step at less cost.",
                StepWarning,
            )

    def report_apart(self, derivatives: Derivatives[Any]) -> None:
        """Warn, at the first call, if products with the players' gradients are all zero.

        For optimizers whose own products may be with other vectors, such as zeros. Cost: one
        product per player, once.
        """
        if not self.watches:
            return
        self.watches = False
        products = derivatives.interaction(derivatives.grads)
        placement = derivatives.placement
        vectors = [*derivatives.grads.values(), *products.values()]
        found = placement.total(torch.stack([vector.any() for vector in vectors]).double()) > 0
        flags = placement.agree(found.long())
        is_given, is_product = flags[: len(products)], flags[len(products) :]
        if all(is_given) and not any(is_product) and INDEPENDENCE not in self._warned:
            self.warn_once(
                APART,
                f"The players do not interact. {ZERO_PRODUCTS} If that is intended, the step is "
                "right, but its mixed products are wasted.",
                StepWarning,
            )

    def signs(self, update: Update[Any]) -> dict[str, Tensor]:
        """Return the 0-dim flags that :meth:`report` needs in addition to the status.

        Most steps have none: the first products are checked for zeros once, and only the system of
        a game that is not zero-sum can amplify its right-hand side.
        """
        signs = {}
        if len(update.products) == (1 if update.solved is None else 2):
            signs[APART] = torch.stack([given & ~out for given, out in update.products]).all()
        if not update.is_zero_sum:
            signs |= self.sign_of_gain(update.solution)
        return signs

    def sign_of_gain(self, solution: Solution) -> dict[str, Tensor]:
        """Return the flag of a solution far longer than its right-hand side, until warned of it."""
        if solution.value_norm is None or STRETCHED in self._warned:
            return {}
        return {STRETCHED: solution.value_norm > LARGEST_GAIN * solution.rhs_norm}

    def report(
        self,
        status: Status,
        taken: bool,
        signs: Collection[str],
        solver: Solver,
        step: object,
        *,
        on_failure: OnFailure,
        failure: Callable[[], str],
        stretch: Callable[[], float],
    ) -> None:
        """Raise or warn if a step was not taken; warn if its solve is unfinished or doubtful.

        Args:
            status: the status of the solve.
            taken: whether the step was taken.
            signs: the names of the flags of :meth:`signs` that are set.
            solver: the solver of the linear system.
            step: the report of the step, for the messages.
            on_failure: the optimizer's ``on_failure``.
            failure: returns why the step was not taken, and what to try.
            stretch: returns the length of the moves relative to the plain gradient steps.

        Raises:
            StepError: if the step was not taken and ``on_failure="raise"``.
        """
        self.watches = False
        if not taken:
            reason = failure()
            if on_failure == "raise":
                raise StepError(f"The step was not taken. {reason} {step}.")
            self.warn_once(
                "failure",
                f"A step was not taken, and later ones may not be either. {reason} {step}.",
                StepWarning,
            )
            return
        if status is not Status.CONVERGED and not getattr(solver, "has_fixed_count", False):
            hint = LIMIT_ITERATIONS if isinstance(solver, ConjugateGradient) else ""
            self.warn_once("convergence", f"{status.sentence}{hint} {step}.", ConvergenceWarning)
        if STRETCHED in signs and (ratio := stretch()) > LONGEST_MOVE:
            self.warn_once(
                STRETCHED,
                f"The moves are {ratio:.3g} times as long as the plain gradient steps: the linear "
                "system is nearly singular. That happens at some learning rates if the losses "
                "share a term that both players minimize. Networks that minimize the same term are "
                "one player: give them as one, with the term as its penalty (`min_penalty`), or "
                f"lower the learning rates. {step}.",
                StepWarning,
            )
        if APART in signs and INDEPENDENCE not in self._warned:
            self.warn_once(
                APART,
                f"{APART_WORDS} {ZERO_PRODUCTS} If that is intended, `interaction=0` takes the "
                "same step without products.",
                StepWarning,
            )

    def report_alone(
        self, player: Any, taken: bool, failure: Callable[[], str], *, on_failure: OnFailure
    ) -> None:
        """Raise or warn if a step of one player was not taken.

        Raises:
            StepError: if the step was not taken and ``on_failure="raise"``.
        """
        if taken:
            return
        reason = failure()
        if on_failure == "raise":
            raise StepError(f"The step of {called(player)} was not taken. {reason}")
        message = f"A step of {called(player)} was not taken, and later ones may not be either."
        self.warn_once("failure", f"{message} {reason}", StepWarning)

    def warn_once(self, what: str, message: str, category: type[Warning]) -> None:
        """Warn, unless this was warned of before."""
        if what not in self._warned:
            self._warned.add(what)
            warn(message, category)


def stretch_of(moves: Iterable[Tensor], plain_steps: Iterable[Tensor]) -> float:
    """Return the length of all moves relative to the plain steps, read on the host."""
    lengths = [
        torch.stack([norm_of_any_size(vector) for vector in vectors]).norm()
        for vectors in (moves, plain_steps)
    ]
    return float(lengths[0] / lengths[1])
