"""Whole lives of an optimizer, event by event, against steps that trust first derivatives alone."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from compopt import ACGD, CGD, ConjugateGradient, DirectSolver

WIDTH = 1e-5
"""Of the differences of gradients. Their error is about its square, and rounding over it."""
TOLERANCE = 1e-6

SOLVERS = {
    "cg": lambda: ConjugateGradient(rtol=1e-13, max_iter=60),
    "direct": DirectSolver,
}


class Game:
    """A loss of two players that is linear and quadratic in neither."""

    def __init__(self, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)

        def param(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()

        self.params = {
            "min": [param(2, 2), param(2)],
            "max": [param(2), param(2)],
        }
        # These come in by a group of their own, later or never.
        self.late = {"min": param(2), "max": param()}

    def loss(self) -> Tensor:
        (a, b), (c, d) = self.params["min"], self.params["max"]
        e, f = self.late["min"], self.late["max"]
        coupled = torch.tanh(a @ d + b) @ c + 0.3 * torch.sin(e @ d) + 0.2 * f * b.sum()
        return coupled + 0.1 * (a * a).sum() * torch.cos(c.sum()) - 0.2 * (d @ d) + 0.1 * f**2

    def penalty(self, player: str) -> Tensor:
        return 0.3 * sum((param**3).sum() for param in self.params[player])


@dataclass
class Memory:
    """What a step remembers of a parameter."""

    count: int = 0
    average: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))


class Reference:
    """Computes each step from first derivatives, their differences, and one dense solve."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.memories: dict[Tensor, Memory] = {}

    def moved(
        self, optimizer: Any, penalized: tuple[str, ...], players: tuple[str, ...] = ("min", "max")
    ) -> dict[Tensor, Tensor]:
        """Return what each parameter of ``players`` that trains must be after their step."""
        entries = [
            (param, group)
            for player in players
            for group in optimizer.param_groups
            for param in group["params"]
            if group["player"] == player and param.requires_grad
        ]
        params = [param for param, _ in entries]
        sign = torch.cat([_full(p, 1.0 if g["player"] == "min" else -1.0) for p, g in entries])
        first = self._gradient(params)
        own = sign * first
        for player in penalized:
            grads = torch.autograd.grad(self.game.penalty(player), params, allow_unused=True)
            own = own + torch.cat([_flat(g, p) for g, p in zip(grads, params, strict=True)])
        own = self._clipped(own, entries, optimizer.param_groups)
        rates, strengths = [], []
        for (param, group), grad in zip(entries, _split(own, params), strict=True):
            strength = group["lr"] if group["interaction"] is None else group["interaction"]
            strengths.append(_full(param, strength / group["lr"]))
            rates.append(strength * self._scale(param, group, grad))
        rate, strength = torch.cat(rates), torch.cat(strengths)
        # Moves d solve d = -A (own + S H d), S the signs, H the mixed second derivatives.
        is_mixed = sign[:, None] != sign[None, :]
        coupling = sign[:, None] * self._differences(params) * is_mixed
        identity = torch.eye(len(own), dtype=torch.float64)
        delta = torch.linalg.solve(identity + rate[:, None] * coupling, -rate * own) / strength
        return {
            param: param.detach() * (1 - group["lr"] * group["weight_decay"])
            + move.view(param.shape)
            for (param, group), move in zip(entries, _split(delta, params), strict=True)
        }

    def _gradient(self, params: list[Tensor]) -> Tensor:
        grads = torch.autograd.grad(self.game.loss(), params, allow_unused=True)
        return torch.cat([_flat(g, p) for g, p in zip(grads, params, strict=True)])

    def _differences(self, params: list[Tensor]) -> Tensor:
        """Return the Hessian of the loss from central differences of its gradient."""
        columns = []
        for param in params:
            entries = param.detach().view(-1)
            for index in range(len(entries)):
                kept = entries[index].item()
                entries[index] = kept + WIDTH
                above = self._gradient(params)
                entries[index] = kept - WIDTH
                columns.append((above - self._gradient(params)) / (2 * WIDTH))
                entries[index] = kept
        return torch.stack(columns, 1)

    def _clipped(
        self, own: Tensor, entries: list[tuple[Tensor, Any]], groups: list[dict[str, Any]]
    ) -> Tensor:
        pieces = _split(own, [param for param, _ in entries])
        for group in groups:
            mine = [k for k, (_, g) in enumerate(entries) if g is group]
            if group["max_grad_norm"] is not None and mine:
                norm = torch.linalg.vector_norm(torch.cat([pieces[k] for k in mine]))
                for k in mine:
                    pieces[k] = pieces[k] * min(1.0, group["max_grad_norm"] / (norm.item() + 1e-6))
        return torch.cat(pieces)

    def _scale(self, param: Tensor, group: dict[str, Any], grad: Tensor) -> Tensor:
        """Return the step sizes per unit of the rate; the average takes the gradient in."""
        memory = self.memories.setdefault(param, Memory())
        memory.count += 1
        if "beta" not in group:
            return torch.ones_like(grad)
        beta = group["beta"]
        memory.average = beta * memory.average + (1 - beta) * grad**2
        correction = (1 - beta**memory.count) ** 0.5
        return correction / (memory.average.sqrt() + group["eps"])


def _full(param: Tensor, value: float) -> Tensor:
    return torch.full((param.numel(),), float(value), dtype=torch.float64)


def _flat(grad: Tensor | None, param: Tensor) -> Tensor:
    return _full(param, 0.0) if grad is None else grad.detach().reshape(-1)


def _split(vector: Tensor, params: list[Tensor]) -> list[Tensor]:
    return list(vector.split([param.numel() for param in params]))


class Life:
    """A game, its optimizer and the reference beside it."""

    def __init__(self, cls: Any, seed: int, solver: str, solve_for: str, warm_start: bool) -> None:
        self.game = Game(seed)
        self.reference = Reference(self.game)
        self.make = lambda players: cls(
            players["min"],
            players["max"],
            lr=(0.05, 0.02),
            solver=SOLVERS[solver](),
            solve_for=solve_for,
            warm_start=warm_start,
        )
        self.optimizer = self.make(self.game.params)
        self.seen = {param: param.detach().clone() for param in self._params()}
        self.has_late: set[str] = set()

    def step(self, form: str, penalized: tuple[str, ...]) -> None:
        expected = self.reference.moved(self.optimizer, penalized)
        penalties = {f"{player}_penalty": self.game.penalty(player) for player in penalized}
        if form == "two-phase":
            self.optimizer.backward(self.game.loss(), **penalties)
            self.optimizer.step()
            self.optimizer.zero_grad()
        elif form == "closure":
            self.optimizer.step(self.game.loss, **penalties)
        else:
            self.optimizer.step(self.game.loss(), **penalties)
        assert self.optimizer.last_step.taken
        self._check(expected)

    def _check(self, expected: dict[Tensor, Tensor]) -> None:
        for param, value in expected.items():
            error = (param.detach() - value).abs().max().item()
            assert error <= TOLERANCE * max(1.0, value.abs().max().item()), f"off by {error:.1e}"
            # A difference must not grow from step to step.
            with torch.no_grad():
                param.copy_(value)
                self.seen[param] = value
        for param in self._params():
            assert torch.equal(param, self.seen[param])
        for param, memory in self.reference.memories.items():
            assert self.optimizer.state[param]["step"] == memory.count

    def alone(self, player: str, has_penalty: bool, is_pair: bool) -> None:
        """Take a gradient step of one player."""
        penalized = (player,) if has_penalty else ()
        expected = self.reference.moved(self.optimizer, penalized, (player,))
        loss = self.game.loss()
        self.optimizer.step(
            (loss, -loss) if is_pair else loss,
            player=player,
            **{f"{player}_penalty": self.game.penalty(player) for _ in penalized},
        )
        self._check(expected)

    def _params(self) -> list[Tensor]:
        own = [param for params in self.game.params.values() for param in params]
        return [*own, *self.game.late.values()]

    def option(self, player: str, name: str, value: Any) -> None:
        for group in self.optimizer.param_groups:
            if group["player"] == player and name in group:
                group[name] = value

    def toggle(self, player: str, index: int) -> None:
        param = self.game.params[player][index]
        # The other parameter of the player stays.
        if self.game.params[player][1 - index].requires_grad:
            param.requires_grad_(not param.requires_grad)

    def add_group(self, player: str, lr: float) -> None:
        if player not in self.has_late:
            self.has_late.add(player)
            group = {"params": [self.game.late[player]], "player": player, "lr": lr}
            self.optimizer.add_param_group(group)

    def reload(self) -> None:
        """Go on with another optimizer, from the state dict of this one."""
        saved = copy.deepcopy(self.optimizer.state_dict())
        self.optimizer = self.make(self.game.params)
        for group in saved["param_groups"][2:]:
            late = self.game.late[group["player"]]
            self.optimizer.add_param_group({"params": [late], "player": group["player"]})
        self.optimizer.load_state_dict(saved)


players = st.sampled_from(["min", "max"])
events = st.one_of(
    st.tuples(
        st.just("step"),
        st.sampled_from(["loss", "closure", "two-phase"]),
        st.sampled_from([(), (), ("min",), ("max",), ("min", "max")]),
    ),
    st.tuples(
        st.just("option"),
        players,
        st.just("lr"),
        st.floats(1e-3, 0.2),
    ),
    st.tuples(st.just("option"), players, st.just("weight_decay"), st.sampled_from([0.0, 0.1])),
    st.tuples(
        st.just("option"), players, st.just("max_grad_norm"), st.sampled_from([None, 0.1, 1.0])
    ),
    st.tuples(
        st.just("option"), players, st.just("interaction"), st.sampled_from([None, 0.02, 0.3])
    ),
    st.tuples(st.just("option"), players, st.just("beta"), st.sampled_from([0.0, 0.9, 0.99])),
    st.tuples(st.just("option"), players, st.just("eps"), st.sampled_from([1e-5, 1e-2])),
    st.tuples(st.just("toggle"), players, st.integers(0, 1)),
    st.tuples(st.just("alone"), players, st.booleans(), st.booleans()),
    st.tuples(st.just("add_group"), players, st.floats(1e-3, 0.1)),
    st.tuples(st.just("reload")),
)
lives = {
    "cls": st.sampled_from([CGD, ACGD]),
    "seed": st.integers(0, 10**6),
    "solver": st.sampled_from(sorted(SOLVERS)),
    "solve_for": st.sampled_from(["min", "max", "alternate", "smaller"]),
    "warm_start": st.booleans(),
    "story": st.lists(events, min_size=4, max_size=14),
}


def live(cls, seed, solver, solve_for, warm_start, story) -> None:
    life = Life(cls, seed, solver, solve_for, warm_start)
    for name, *arguments in [*story, ("step", "loss", ())]:
        getattr(life, name)(*arguments)


few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(**lives)
def test_each_step_of_a_life_is_the_right_one(**life: Any) -> None:
    live(**life)


@pytest.mark.slow
@settings(few, max_examples=5000)
@given(**lives)
def test_each_step_of_many_lives_is_the_right_one(**life: Any) -> None:
    live(**life)
