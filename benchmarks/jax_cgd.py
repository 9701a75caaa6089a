"""A step of jax-cgd beside one of compopt, on the Poisson game.

Run ``python -m benchmarks.jax_cgd`` where ``jax-cgd`` is installed (``pip install -e ".[jax]"``).
Its optimizer compiles one step of one function of the parameters, batch included, so a new batch is
a new compilation: this is timed too, and all steps here are on one batch. Both packages start from
the same weights. Each is compared with Adam in its own framework.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.contestants import CONTESTANTS, EXACT
from benchmarks.environment import conditions
from benchmarks.workloads import POISSON, Play

RESULTS = Path(__file__).parent / "results"
BETA, EPS = 0.99, 1e-5
"""Of the published ACGD, which are not the defaults of jax-cgd."""


def layers(network: nn.Module) -> list[tuple[Any, Any]]:
    """Return weights and biases of a fully connected network as arrays."""
    import jax.numpy as jnp

    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [tuple(map(jnp.array, (layer.weight.detach(), layer.bias.detach()))) for layer in linear]


def jax_loss(batch: tuple[torch.Tensor, ...]) -> Callable[[Any, Any], Any]:
    """Return the loss of the Poisson game on a batch, as a function of both players' layers."""
    import jax
    import jax.numpy as jnp

    inside, border = (jnp.array(part.detach()) for part in batch)

    def network(parameters: Any, points: Any) -> Any:
        *hidden, (weight, bias) = parameters
        for matrix, shift in hidden:
            points = jnp.tanh(points @ matrix.T + shift)
        return points @ weight.T + bias

    def loss(solution: Any, stakes: Any) -> Any:
        def value(point: Any) -> Any:
            return network(solution, point)[0]

        laplacian = jax.vmap(lambda point: jnp.trace(jax.hessian(value)(point)))(inside)
        residual = laplacian + 2 * jnp.sin(inside[:, 0]) * jnp.cos(inside[:, 1])
        on_border = network(stakes, border)[:, 1] * network(solution, border)[:, 0]
        return (network(stakes, inside)[:, 0] * residual).mean() + on_border.mean()

    return loss


def seconds(function: Callable[[], object]) -> float:
    """Return how long a function takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def jax_steps(play: Play, batch: tuple[torch.Tensor, ...]) -> dict[str, Callable[[], None]]:
    """Return a step of jax-cgd's ACGD and one of Adam, each with its own parameters."""
    import jax
    import jax_cgd
    import optax

    loss = jax_loss(batch)
    players = layers(play.min_player), layers(play.max_player)
    acgd = jax_cgd.ACGD(*players, loss, lr=POISSON.lr, beta=BETA, eps=EPS)
    adam = optax.adam(POISSON.lr)

    @jax.jit
    def updated(parameters: Any, state: Any) -> Any:
        down, up = jax.grad(loss, argnums=(0, 1))(*parameters)
        ascent = jax.tree.map(lambda grad: -grad, up)
        updates, state = adam.update((down, ascent), state, parameters)
        return optax.apply_updates(parameters, updates), state

    held = [players, adam.init(players)]

    def adam_step() -> None:
        held[:] = updated(*held)
        jax.block_until_ready(held)

    def acgd_step() -> None:
        acgd.step()
        jax.block_until_ready((acgd.x_params, acgd.y_params))

    return {"adam": adam_step, "acgd": acgd_step}


def torch_steps(batch: tuple[torch.Tensor, ...]) -> dict[str, Callable[[], None]]:
    """Return steps of this package and of Adam, each with its own parameters."""

    def step_of(key: str) -> Callable[[], None]:
        play = POISSON.start()
        step = CONTESTANTS[key].build(play, POISSON.lr)
        return lambda: step(lambda: play.loss(batch))

    return {key: step_of(key) for key in ("adam", "compopt", "compopt-tight")}


def parameters(play: Play) -> torch.Tensor:
    """Return all parameters of both players, flat."""
    both = [*play.min_player.parameters(), *play.max_player.parameters()]
    return torch.cat([param.detach().flatten() for param in both])


def step_error(batch: tuple[torch.Tensor, ...]) -> float:
    """Return the relative error of jax-cgd's first step, against this package's exact one."""
    import jax_cgd
    import numpy as np

    play = POISSON.start()
    before = parameters(play)
    players = layers(play.min_player), layers(play.max_player)
    acgd = jax_cgd.ACGD(*players, jax_loss(batch), lr=POISSON.lr, beta=BETA, eps=EPS)
    acgd.step()
    after = np.concatenate([np.asarray(acgd.x_params), np.asarray(acgd.y_params)])
    EXACT(play, POISSON.lr)(lambda: play.loss(batch))
    exact = parameters(play) - before
    error = torch.from_numpy(after) - before - exact
    return float(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(exact))


def measure(rounds: int) -> dict[str, dict]:
    """Time all steps in turns; return figures for each."""
    play = POISSON.start()
    batch = play.draw(torch.Generator().manual_seed(1))
    steps = {f"{key}, torch": step for key, step in torch_steps(batch).items()}
    steps |= {f"{key}, jax": step for key, step in jax_steps(play, batch).items()}
    rows: dict[str, dict] = {}
    times: dict[str, list[float]] = {}
    for name, step in steps.items():
        first = seconds(step)
        try:
            step()
        except Exception as error:
            # What a user of that package would see, of whatever kind.
            rows[name] = {"failure": str(error).splitlines()[0], "first_s": first}
        else:
            rows[name] = {"first_s": first}
            times[name] = []
    for _ in range(rounds):
        for name in times:
            times[name].append(seconds(steps[name]))
    for name, taken in times.items():
        adam = times[f"adam, {name.split(', ')[1]}"]
        rows[name] |= {
            "median_s": statistics.median(taken),
            "relative_to_adam": statistics.median(a / b for a, b in zip(taken, adam, strict=True)),
        }
    rows["acgd, jax"]["step_error"] = step_error(batch)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write a data file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    rows = measure(args.rounds)
    table = Table("optimizer", "ms", "x Adam of its framework", "first step, s")
    for name, row in rows.items():
        if "failure" in row:
            table.add_row(name, f"fails: {row['failure']}", "", f"{row['first_s']:.2f}")
        else:
            figures = f"{1e3 * row['median_s']:.1f}", f"{row['relative_to_adam']:.2f}"
            table.add_row(name, *figures, f"{row['first_s']:.2f}")
    Console().print(table)
    print(f"Error of jax-cgd's first step: {rows['acgd, jax']['step_error']:.1e}")
    data = {"conditions": conditions(("jax", "jax-cgd")), "rounds": args.rounds, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "jax_cgd.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
