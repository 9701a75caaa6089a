"""The optimizers under test, as data, and tiny games with known answers.

A new optimizer is a new row in ``OPTIMIZERS``; the generic tests in ``tests/optim`` then run on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compopt import ACGD, CGD, ConjugateGradient, DirectSolver

# Largest error of one step relative to the largest entry that is compared.
TOLERANCES = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 1e-2,
    torch.float16: 2e-3,
}

PLAYERS = ("min", "max")


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise unless ``actual`` is ``expected`` to the rounding of its dtype."""
    assert actual.shape == expected.shape, f"{what}: {actual.shape} is not {expected.shape}"
    if actual.numel() == 0:
        return
    absolute = (actual.double() - expected.double()).abs().max().item()
    relative = absolute / max(expected.double().abs().max().item(), 1e-30)
    tolerance = TOLERANCES[actual.dtype]
    assert relative <= tolerance, (
        f"{what}: relative error {relative:.2e} > {tolerance:.0e} (absolute {absolute:.2e}); "
        f"got {actual.tolist()}, expected {expected.tolist()}"
    )


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of ``tensor``, so that NaN equals NaN and 0.0 differs from -0.0."""
    return tensor.detach().reshape(-1).clone().view(torch.uint8)


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise unless two snapshots have the same names and the same bits."""
    assert actual.keys() == expected.keys(), (
        f"only in one of them: {sorted(actual.keys() ^ expected.keys())}"
    )
    for name, tensor in actual.items():
        other = expected[name]
        assert tensor.dtype == other.dtype, f"{name}: {tensor.dtype} is not {other.dtype}"
        assert torch.equal(bits(tensor), bits(other)), (
            f"{name} differs by {(tensor.double() - other.double()).abs().max().item():.2e}: "
            f"{tensor.tolist()} is not {other.tolist()}"
        )


def all_params(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def snapshot(optimizer: torch.optim.Optimizer, *modules: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters, state and buffers by name."""
    tensors = {"number of states": torch.tensor(len(optimizer.state))}
    for index, param in enumerate(all_params(optimizer)):
        tensors[f"parameter {index}"] = param.detach().clone()
        for key, value in optimizer.state.get(param, {}).items():
            tensors[f"state {index} {key}"] = value.detach().clone()
    for number, module in enumerate(modules):
        for name, buffer in module.named_buffers():
            tensors[f"buffer {number} {name}"] = buffer.clone()
    return tensors


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


class QuadraticGame:
    """``x P x / 2 + x M y - y Q y / 2 + a x + b y`` with each player in two tensors.

    The parameters may be exchanged for others of 5 and 3 entries in all; ``dtype`` is that of the
    arithmetic.
    """

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.dtype = dtype
        self.min_params = [random(2).requires_grad_(), random(1, 3).requires_grad_()]
        self.max_params = [random(2).requires_grad_(), random().requires_grad_()]
        self.p, self.q, self.mixed = random(5, 5), random(3, 3), 2 * random(5, 3)
        self.p, self.q = self.p @ self.p.T / 5, self.q @ self.q.T / 3
        self.a, self.b = random(5), random(3)

    def params(self, player: str) -> list[Tensor]:
        return self.min_params if player == "min" else self.max_params

    def vector(self, player: str) -> Tensor:
        return flat(self.params(player)).to(self.dtype)

    def loss(self, wrap: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
        """Return the loss; ``wrap`` is applied to each player's flat vector first."""
        x, y = wrap(self.vector("min")), wrap(self.vector("max"))
        bilinear = x @ self.mixed @ y
        return x @ self.p @ x / 2 + bilinear - y @ self.q @ y / 2 + self.a @ x + self.b @ y

    def own_grads(self) -> dict[str, Tensor]:
        """Return the gradient of each player's own objective, by the formula."""
        x, y = self.vector("min").detach(), self.vector("max").detach()
        return {
            "min": self.p @ x + self.mixed @ y + self.a,
            "max": self.q @ y - self.mixed.T @ x - self.b,
        }


class Token:
    """Something that lives as long as a graph that holds it."""


class _Hold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, token: Token | None) -> Tensor:
        ctx.token = token
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class NetworkGame:
    """A small GAN whose batches and weights are fixed by the seed."""

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
            self.critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)
            self.noise = torch.randn(8, 16, 2).to(dtype)
            self.real = (torch.randn(8, 16, 2) + 1).to(dtype)

    @property
    def min_params(self) -> list[Tensor]:
        return list(self.generator.parameters())

    @property
    def max_params(self) -> list[Tensor]:
        return list(self.critic.parameters())

    def loss(self, batch: int = 0, token: "Token | None" = None) -> Tensor:
        """Return the loss; the graphs of both players' gradients keep ``token`` alive."""
        noise, real = self.noise[batch % 8], self.real[batch % 8]
        scores = self.critic(real), self.critic(_Hold.apply(self.generator(noise), token))
        softplus = nn.functional.softplus
        return -softplus(-scores[0]).mean() - softplus(scores[1]).mean()


Rates = Callable[[dict[str, Any], Tensor, dict[str, Any]], Tensor]


def constant_rates(group: dict[str, Any], grad: Tensor, memory: dict[str, Any]) -> Tensor:
    return torch.full_like(grad, float(group["lr"]))


def adaptive_rates(group: dict[str, Any], grad: Tensor, memory: dict[str, Any]) -> Tensor:
    beta = group["beta"]
    memory["num_steps"] = memory.get("num_steps", 0) + 1
    memory["average"] = beta * memory.get("average", 0.0) + (1 - beta) * grad**2
    correction = (1 - beta ** memory["num_steps"]) ** 0.5
    return float(group["lr"]) * correction / (memory["average"].sqrt() + group["eps"])


class DenseReference:
    """The step of an optimizer on a :class:`QuadraticGame`, from one dense solve for both moves.

    It reads the hyperparameters from the optimizer's groups and keeps moments of its own.
    """

    def __init__(self, info: "OptimizerInfo", game: QuadraticGame) -> None:
        self.info = info
        self.game = game
        self.memory: dict[Tensor, dict[str, Any]] = {}

    def next_params(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        extra: dict[str, Tensor] | None = None,
        interacts: bool = True,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each trainable parameter with the value that one step must give it.

        Args:
            optimizer: whose groups are read.
            extra: by player, what penalties add to its own gradient.
            interacts: whether the mixed derivatives count; else it is the plain gradient step.
        """
        grads = self.game.own_grads()
        for player, extra_grad in (extra or {}).items():
            grads[player] = grads[player] + extra_grad
        pieces = {
            param: grads[player][where]
            for player in PLAYERS
            for param, where in _positions(self.game.params(player))
        }
        rates = {player: torch.full_like(grads[player], torch.nan) for player in PLAYERS}
        group_of = {}
        for group in optimizer.param_groups:
            params = [param for param in group["params"] if param.requires_grad]
            if params and group["max_grad_norm"] is not None:
                norm = torch.linalg.vector_norm(torch.cat([pieces[param] for param in params]))
                # As `torch.nn.utils.clip_grad_norm_` does.
                coefficient = min(1.0, group["max_grad_norm"] / (norm.item() + 1e-6))
                for param in params:
                    pieces[param] = pieces[param] * coefficient
            for param in params:
                group_of[param] = group
        moving = {}
        for player in PLAYERS:
            for param, where in _positions(self.game.params(player)):
                grads[player][where] = pieces[param]
                if param in group_of:
                    memory = self.memory.setdefault(param, {})
                    rates[player][where] = self.info.rates(group_of[param], pieces[param], memory)
            moving[player] = ~rates[player].isnan()
        delta = _joint_solve(grads, rates, moving, self.game.mixed if interacts else None)
        result = []
        for player in PLAYERS:
            for param, where in _positions(self.game.params(player)):
                if param in group_of:
                    group = group_of[param]
                    decay = 1 - float(group["lr"]) * group["weight_decay"]
                    move = delta[player][where].view(param.shape)
                    result.append((param, param.detach().to(move.dtype) * decay + move))
        return result


def _positions(params: Sequence[Tensor]) -> Iterator[tuple[Tensor, slice]]:
    start = 0
    for param in params:
        yield param, slice(start, start + param.numel())
        start += param.numel()


def _joint_solve(
    grads: dict[str, Tensor],
    rates: dict[str, Tensor],
    moving: dict[str, Tensor],
    mixed: Tensor | None,
) -> dict[str, Tensor]:
    """Solve ``dx + H_x D dy = -H_x g_x``, ``dy - H_y D^T dx = -H_y g_y`` in one system."""
    x, y = moving["min"], moving["max"]
    rates_min, rates_max = rates["min"][x], rates["max"][y]
    size = len(rates_min)
    matrix = torch.eye(size + len(rates_max), dtype=rates_min.dtype)
    if mixed is not None:
        block = mixed[x][:, y]
        matrix[:size, size:] = rates_min[:, None] * block
        matrix[size:, :size] = -rates_max[:, None] * block.T
    rhs = -torch.cat([rates_min * grads["min"][x], rates_max * grads["max"][y]])
    solution = torch.linalg.solve(matrix, rhs)
    delta = {player: torch.zeros_like(grads[player]) for player in PLAYERS}
    delta["min"][x], delta["max"][y] = solution[:size], solution[size:]
    return delta


def assert_dense_step(
    info: "OptimizerInfo",
    optimizer: torch.optim.Optimizer,
    reference: DenseReference,
    step: Callable[[], object] | None = None,
    **options: Any,
) -> None:
    """Take a step and compare every parameter with the dense one."""
    expected = reference.next_params(optimizer, **options)
    if step is None:
        optimizer.step(reference.game.loss())
    else:
        step()
    for index, (param, value) in enumerate(expected):
        assert_close(param.detach(), value, f"{info.name}, parameter {index}")


@dataclass(frozen=True)
class Variant:
    """Valid arguments and what they are for."""

    description: str
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class ErrorInput:
    """Arguments that must be refused, and how."""

    description: str
    kwargs: dict[str, Any]
    error: type[Exception]
    match: str


@dataclass(frozen=True)
class OptimizerInfo:
    """One optimizer class under test.

    Attributes:
        cls: the class.
        rates: its step sizes, from the published formula.
        state_keys: what it keeps for each parameter besides the step count and the warm start.
        variants: valid arguments.
        errors: invalid ones.
    """

    cls: type[torch.optim.Optimizer]
    rates: Rates
    state_keys: frozenset[str]
    variants: tuple[Variant, ...]
    errors: tuple[ErrorInput, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.cls.__name__

    def exact(self, game: "QuadraticGame | NetworkGame", **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer of ``game`` with a solver that leaves only rounding."""
        kwargs = {"lr": 0.1, "solver": DirectSolver(), **kwargs}
        return self.cls(game.min_params, game.max_params, **kwargs)


def _common_variants(lr: float) -> tuple[Variant, ...]:
    fixed = ConjugateGradient(rtol=0.0, max_iter=3)
    return (
        Variant("defaults", {}),
        Variant("lr", {"lr": lr}),
        Variant("pair-lr", {"lr": (lr, 0.3 * lr)}),
        Variant("tensor-lr", {"lr": torch.tensor(lr, dtype=torch.float64)}),
        Variant("pair-of-tensors-lr", {"lr": (torch.tensor(lr, dtype=torch.float64), 0.3 * lr)}),
        Variant("zero-lr", {"lr": 0.0}),
        Variant("weight-decay", {"lr": lr, "weight_decay": 0.1}),
        Variant("max-grad-norm", {"lr": lr, "max_grad_norm": 0.3}),
        Variant("warm-start", {"lr": lr, "warm_start": True}),
        Variant("solve-for-min", {"lr": lr, "solve_for": "min", "warm_start": True}),
        Variant("solve-for-max", {"lr": lr, "solve_for": "max"}),
        Variant("alternate", {"lr": lr, "solve_for": "alternate"}),
        Variant("alternate-warm", {"lr": lr, "solve_for": "alternate", "warm_start": True}),
        Variant("tight-solver", {"lr": lr, "solver": ConjugateGradient(rtol=1e-5, max_iter=50)}),
        Variant("fixed-count", {"lr": lr, "solver": fixed}),
        Variant("direct-solver", {"lr": lr, "solver": DirectSolver()}),
        Variant("capturable", {"lr": lr, "solver": fixed, "capturable": True}),
        Variant(
            "capturable-warm-decay",
            {
                "lr": torch.tensor(lr, dtype=torch.float64),
                "solver": fixed,
                "capturable": True,
                "warm_start": True,
                "weight_decay": 0.1,
            },
        ),
        Variant("skip", {"lr": lr, "on_failure": "skip"}),
        Variant("raise", {"lr": lr, "on_failure": "raise"}),
    )


def _bad_numbers(name: str, values: dict[str, Any], error: type[Exception]) -> list[ErrorInput]:
    return [
        ErrorInput(f"{name}-{what}", {name: value}, error, f"`{name}`")
        for what, value in values.items()
    ]


_NAN, _INF = float("nan"), float("inf")
_COMMON_ERRORS = (
    *_bad_numbers("lr", {"negative": -0.1, "nan": _NAN, "inf": _INF}, ValueError),
    *_bad_numbers("lr", {"text": "0.1", "none": None, "bool": True, "complex": 1j}, TypeError),
    *_bad_numbers(
        "lr",
        {
            "vector": torch.ones(2),
            "integer-tensor": torch.tensor(1),
            "negative-tensor": torch.tensor(-0.1),
            "nan-tensor": torch.tensor(_NAN),
            "single": (0.1,),
            "triple": (0.1, 0.1, 0.1),
            "negative-max": (0.1, -0.1),
            "negative-min": (-0.1, 0.1),
        },
        ValueError,
    ),
    *_bad_numbers("lr", {"pair-of-text": (0.1, "0.1")}, TypeError),
    *_bad_numbers("weight_decay", {"negative": -0.1, "nan": _NAN, "inf": _INF}, ValueError),
    *_bad_numbers(
        "weight_decay",
        {"text": "0", "none": None, "tensor": torch.tensor(0.1), "pair": (0.1, 0.1)},
        TypeError,
    ),
    *_bad_numbers(
        "max_grad_norm", {"negative": -1.0, "nan": _NAN, "inf": _INF, "zero": 0.0}, ValueError
    ),
    *_bad_numbers("max_grad_norm", {"text": "1", "tensor": torch.tensor(1.0)}, TypeError),
    *_bad_numbers("solve_for", {"unknown": "larger", "none": None, "list": ["min"]}, ValueError),
    *_bad_numbers("on_failure", {"unknown": "ignore", "none": None, "bool": True}, ValueError),
    *_bad_numbers("backend", {"unknown": "cuda", "none": None}, ValueError),
    *_bad_numbers("solver", {"class": 3, "text": "cg"}, TypeError),
    ErrorInput("capturable-solver", {"capturable": True}, ValueError, "fixed iteration count"),
    ErrorInput(
        "capturable-raise",
        {"capturable": True, "solver": DirectSolver(), "on_failure": "raise"},
        ValueError,
        "on_failure",
    ),
    ErrorInput(
        "capturable-alternate",
        {"capturable": True, "solver": DirectSolver(), "solve_for": "alternate"},
        ValueError,
        "alternate",
    ),
    ErrorInput("maximize", {"maximize": True}, TypeError, "maximize"),
)

OPTIMIZERS = (
    OptimizerInfo(
        cls=CGD,
        rates=constant_rates,
        state_keys=frozenset(),
        variants=_common_variants(0.1),
        errors=_COMMON_ERRORS,
    ),
    OptimizerInfo(
        cls=ACGD,
        rates=adaptive_rates,
        state_keys=frozenset({"exp_avg_sq"}),
        variants=(
            *_common_variants(0.01),
            Variant("beta-and-eps", {"beta": 0.9, "eps": 1e-3}),
            Variant("no-memory", {"beta": 0.0}),
        ),
        errors=(
            *_COMMON_ERRORS,
            *_bad_numbers("beta", {"negative": -0.1, "one": 1.0, "nan": _NAN}, ValueError),
            *_bad_numbers(
                "beta", {"text": "0.9", "none": None, "tensor": torch.tensor(0.9)}, TypeError
            ),
            *_bad_numbers("eps", {"negative": -1e-8, "nan": _NAN, "inf": _INF}, ValueError),
            *_bad_numbers(
                "eps", {"text": "0", "none": None, "tensor": torch.tensor(1e-5)}, TypeError
            ),
        ),
    ),
)

each_optimizer = pytest.mark.parametrize("info", OPTIMIZERS, ids=lambda info: info.name)
each_variant = pytest.mark.parametrize(
    ("info", "variant"),
    [
        pytest.param(info, variant, id=f"{info.name}-{variant.description}")
        for info in OPTIMIZERS
        for variant in info.variants
    ],
)
each_error = pytest.mark.parametrize(
    ("info", "invalid"),
    [
        pytest.param(info, invalid, id=f"{info.name}-{invalid.description}")
        for info in OPTIMIZERS
        for invalid in info.errors
    ],
)
