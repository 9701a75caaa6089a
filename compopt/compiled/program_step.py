"""Steps as compiled programs, one for each set of terms."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from compopt._checks import check_hooks
from compopt._typing import Player
from compopt.compiled.bound import BoundTensors
from compopt.compiled.checks import EAGER, check_inputs, check_program
from compopt.compiled.program import Arguments, Layout, LossModule, Outcome, Program
from compopt.compiled.step import CompiledStep, Losses
from compopt.compiled.terms import Terms, terms_of
from compopt.compiled.trees import Tree
from compopt.optim.report import StepReport
from compopt.optim.two_player import TwoPlayerCompetitive
from compopt.solvers import ConjugateGradient

MOST_PROGRAMS = 8
"""Limit of programs: a step that needs more probably needs a new one each time."""


class ProgramStep(CompiledStep):
    """The step as a compiled function of parameters, buffers, state and inputs.

    A program has no side effects. Its results are written once all are computed, as in an eager
    step.
    """

    mode = "program"

    def __init__(
        self,
        optimizer: TwoPlayerCompetitive,
        loss_fn: Callable[..., Any],
        networks: Sequence[nn.Module],
        backend: str | Callable[..., Any],
    ) -> None:
        super().__init__(optimizer, loss_fn, networks)
        check_program(optimizer)
        self._backend = backend
        self._module = LossModule(loss_fn, networks)
        self._programs: list[tuple[Terms, Program]] = []
        self._bound = BoundTensors(optimizer, self._module)
        # Runs the hooks of `step` and records a profiler range.
        self._hooked = torch.optim.Optimizer.profile_hook_step(self._step)

    def __call__(self, *inputs: Any) -> Losses:
        """Take one step."""
        # Schedulers warn if this is not set.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        losses: Losses = self._hooked(self.optimizer, *inputs)
        return losses

    @torch.no_grad()
    def _step(self, optimizer: TwoPlayerCompetitive, *inputs: Any) -> Losses:
        if not self._bound.are_current():
            self._bound, self._programs = BoundTensors(optimizer, self._module), []
        bound = self._bound
        tensors, tree = Tree.of(inputs)
        check_inputs(tree.leaves)
        counts = bound.counts()
        distinct = list(dict.fromkeys(counts))
        count_of = [distinct.index(count) for count in counts]
        (solved,) = optimizer._solved()
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        arguments = Arguments(
            bound.params,
            bound.vectors(),
            bound.others(),
            torch.tensor([*distinct, *rates], dtype=torch.float64, device="cpu"),
            tensors,
        )
        terms = terms_of(optimizer, bound, tensors, tree, "cpu", count_of, solved)
        program = self._find(terms)
        if program is None:
            check_program(optimizer)
            check_hooks(bound.params)
            layout = Layout(bound.names, count_of, len(distinct), solved, tree)
            program = Program(optimizer, self._module, arguments, layout, self._backend)
            outcome = program(arguments)
            self._programs.append((terms, program))
        else:
            outcome = program(arguments)
        self._finish(program, arguments, outcome)
        first, *second = outcome.losses
        return (first, *second) if second else first  # type: ignore[return-value]

    def _find(self, terms: Terms) -> Program | None:
        for known, program in self._programs:
            if known == terms:
                return program
        if len(self._programs) == MOST_PROGRAMS:
            last = self._programs[-1][0]
            names = [n for n, a, b in zip(Terms._fields, terms, last, strict=True) if a != b]
            raise RuntimeError(
                f"This step has been compiled {MOST_PROGRAMS} times, and would be again for other "
                f"{' and '.join(names)}. Give all batches one size "
                "(`drop_last=True`), pass what changes from step to step as a tensor, or "
                f"{EAGER}."
            )
        return None

    def _finish(self, program: Program, arguments: Arguments, outcome: Outcome) -> None:
        """Write the results of a program: buffers in any case, the rest if a step is taken."""
        optimizer, bound = self.optimizer, self._bound
        report = program.report(outcome.figures)
        for (name, old), new in zip(arguments.others.items(), outcome.others, strict=True):
            # An eager loss also updates buffers, whether or not the step is taken.
            if name in program.changed:
                old.copy_(new)
        optimizer._pending = None
        optimizer.last_step = report
        is_moved, is_solved = bool(outcome.figures[0]), report.taken
        if not is_solved and not optimizer.capturable:
            self._report_failure(report)
        if not is_moved:
            return
        commit = optimizer._commit(True)
        vectors = {player: optimizer._vectors_of(player) for player in bound.by_player}
        for own in vectors.values():
            own.stage_counts(commit, True)
        for (player, key), vector in zip(arguments.vectors, outcome.vectors, strict=True):
            commit.copy(vectors[player].stage(commit, key), vector)
        params = bound.params
        commit.add(lambda: torch._foreach_copy_(params, outcome.params), params[0])
        commit.run()

    def _report_failure(self, report: StepReport[Player]) -> None:
        self.optimizer._reporter.report(
            report.status,
            False,
            (),
            self.optimizer.solver or ConjugateGradient(),
            report,
            on_failure=self.optimizer.on_failure,
            failure=report.failure,
            stretch=lambda: 0.0,
        )
