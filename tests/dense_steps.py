"""The step of an optimizer from one dense solve, and the comparison with it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from field_steps import FieldStep
from games import PLAYERS, QuadraticGame
from optimizer_registry import OptimizerInfo
from torch import Tensor

# Largest error of one step relative to the largest entry that is compared.
TOLERANCES = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 1e-2,
    torch.float16: 2e-3,
}


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


def DenseReference(  # noqa: N802 - it stands for a class
    info: OptimizerInfo, game: QuadraticGame
) -> "CompetitiveReference | FieldReference":
    """Return what knows the steps of ``info`` on ``game``."""
    return (CompetitiveReference if info.is_competitive else FieldReference)(info, game)


class CompetitiveReference:
    """The step of an optimizer on a :class:`QuadraticGame`, from one dense solve for both moves.

    It reads the hyperparameters from the optimizer's groups and keeps moments of its own.
    """

    def __init__(self, info: OptimizerInfo, game: QuadraticGame) -> None:
        self.info = info
        self.game = game
        self.memory: dict[Tensor, dict[str, Any]] = {}

    def resume(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over the state of ``optimizer``."""
        for param, state in optimizer.state.items():
            if "exp_avg_sq" in state:
                memory = self.memory.setdefault(param, {})
                memory["num_steps"] = int(state["step"])
                memory["average"] = state["exp_avg_sq"].double().reshape(-1)

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
                    group = group_of[param]
                    strength = group["lr"] if group["interaction"] is None else group["interaction"]
                    at_strength = {**group, "lr": strength}
                    rates[player][where] = self.info.rates(at_strength, pieces[param], memory)
                    rates[player][where] *= _inverse_metric(param, group)
            moving[player] = ~rates[player].isnan()
        delta = _joint_solve(grads, rates, moving, self.game.mixed if interacts else None)
        result = []
        for player in PLAYERS:
            for param, where in _positions(self.game.params(player)):
                if param in group_of:
                    group = group_of[param]
                    decay = 1 - float(group["lr"]) * group["weight_decay"]
                    move = delta[player][where].view(param.shape)
                    if group["interaction"] is not None:
                        move = move * (float(group["lr"]) / group["interaction"])
                    result.append((param, _moved(param, group, decay, move)))
        return result


def _inverse_metric(param: Tensor, group: dict[str, Any]) -> Tensor:
    """Return the diagonal of the inverse Hessian of the group's mirror map, of boxes only."""
    w = param.detach().reshape(-1)
    if group.get("mirror", "euclidean") == "euclidean":
        return torch.ones_like(w)
    _, low, high = group["mirror"]
    return 1 / (1 / (w - low) + 1 / (high - w))


def _moved(param: Tensor, group: dict[str, Any], decay: float, move: Tensor) -> Tensor:
    """Return where ``move`` leads in the dual geometry of the group's mirror map."""
    w = param.detach().to(move.dtype)
    if group.get("mirror", "euclidean") == "euclidean":
        return w * decay + move
    _, low, high = group["mirror"]
    odds = (w - low) / (high - w) * (move / _inverse_metric(param, group).view(w.shape)).exp()
    return (low + high * odds) / (1 + odds)


class FieldReference:
    """The step of an optimizer that follows the field, by the formula of its row.

    It reads the hyperparameters from the optimizer's groups and keeps vectors of its own.
    """

    def __init__(self, info: OptimizerInfo, game: QuadraticGame) -> None:
        self.info = info
        self.game = game
        size = len(game.p) + len(game.q)
        self.memory = {key: torch.zeros(size, dtype=torch.float64) for key in info.state_keys}
        self.num_steps = torch.zeros(size, dtype=torch.float64)

    def resume(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over the state of ``optimizer``."""
        for param, where in self._places():
            state = optimizer.state.get(param, {})
            if "step" in state:
                self.num_steps[where] = float(state["step"])
            for key in self.memory:
                if key in state:
                    self.memory[key][where] = state[key].double().reshape(-1)

    def _places(self) -> list[tuple[Tensor, slice]]:
        return list(_positions([*self.game.params("min"), *self.game.params("max")]))

    def next_params(
        self, optimizer: torch.optim.Optimizer, *, extra: dict[str, Tensor] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each trainable parameter with the value that one step must give it."""
        game = self.game
        full = torch.cat([game.vector("min"), game.vector("max")]).detach().double()
        jacobian = torch.cat(
            [torch.cat([game.p, game.mixed], 1), torch.cat([-game.mixed.T, game.q], 1)]
        ).double()
        constant = torch.cat([game.a, -game.b]).double()
        penalty = torch.cat(
            [
                (extra or {}).get(p, torch.zeros(n))
                for p, n in (("min", len(game.p)), ("max", len(game.q)))
            ]
        )
        group_of = {
            param: group
            for group in optimizer.param_groups
            for param in group["params"]
            if param.requires_grad
        }
        places = [(param, where) for param, where in self._places() if param in group_of]
        index = torch.cat([torch.arange(len(full))[where] for _, where in places])

        def raw(w: Tensor) -> Tensor:
            at = full.clone()
            at[index] = w
            return (jacobian @ at + constant)[index]

        def xi(w: Tensor) -> Tensor:
            field = torch.zeros_like(full)
            field[index] = raw(w) + penalty[index]
            for group in optimizer.param_groups:
                limit = group.get("max_grad_norm")
                own = [where for param, where in places if group_of[param] is group]
                if limit is not None and own:
                    norm = torch.linalg.vector_norm(torch.cat([field[where] for where in own]))
                    for where in own:
                        field[where] *= min(1.0, limit / (norm.item() + 1e-6))
            return field[index]

        def option(name: str) -> Tensor:
            values = torch.full_like(full, torch.nan)
            for param, where in places:
                if name in ("beta1", "beta2"):
                    value = group_of[param]["betas"][name == "beta2"]
                else:
                    value = group_of[param][name]
                if value is not None:
                    values[where] = float(value)
            return values[index]

        memory = {key: vector[index] for key, vector in self.memory.items()}
        move = torch.zeros_like(full)
        move[index] = self.info.move(
            FieldStep(
                w=full[index],
                raw=raw,
                xi=xi,
                jacobian=jacobian[index][:, index],
                is_min=index < len(game.p),
                option=option,
                memory=memory,
                num_steps=self.num_steps[index],
                optimizer=optimizer,
            )
        )
        for key, vector in memory.items():
            self.memory[key][index] = vector
        self.num_steps[index] += 1
        result = []
        for param, where in places:
            group = group_of[param]
            decay = 1 - float(group["lr"]) * group["weight_decay"]
            result.append(
                (param, full[where].view(param.shape) * decay + move[where].view(param.shape))
            )
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
    info: OptimizerInfo,
    optimizer: torch.optim.Optimizer,
    reference: DenseReference,
    step: Callable[[], object] | None = None,
    **options: Any,
) -> None:
    """Take a step and compare every parameter with the dense one."""
    expected = reference.next_params(optimizer, **options)
    if step is None:
        optimizer.step(reference.game.loss)
    else:
        step()
    for index, (param, value) in enumerate(expected):
        assert_close(param.detach(), value, f"{info.name}, parameter {index}")
