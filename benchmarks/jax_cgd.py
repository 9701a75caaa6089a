"""A step of jax-cgd compared with one of compopt, on the Poisson game.

Run ``python -m benchmarks.jax_cgd`` where ``jax-cgd`` is installed (``pip install -e ".[jax]"``).
Its optimizer compiles the step of a function of the parameters that contains the batch, so each new
batch needs a compilation. This is timed separately, and all steps here use one batch. Both packages
start from the same weights. Each is compared with Adam in its own framework.
"""

import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.contestants import CONTESTANTS, EXACT
from benchmarks.harness import arguments, clock, in_turns, ratios, show, write_result
from benchmarks.workloads import POISSON, Play

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
    for name, step in steps.items():
        first = clock()(step)
        try:
            step()
        except Exception as error:
            # Report the package's own error, of any type, as its users would see it.
            rows[name] = {"failure": str(error).splitlines()[0], "first_s": first}
        else:
            rows[name] = {"first_s": first}
    times = in_turns({n: steps[n] for n in rows if "failure" not in rows[n]}, rounds)
    for name, taken in times.items():
        adam = times[f"adam, {name.split(', ')[1]}"]
        rows[name] |= {
            "median_s": statistics.median(taken),
            "relative_to_adam": statistics.median(ratios(taken, adam)),
        }
    rows["acgd, jax"]["step_error"] = step_error(batch)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write a data file."""
    parser = arguments(__doc__, rounds=15)
    args = parser.parse_args(argv)
    if not all(importlib.util.find_spec(name) for name in ("jax", "jax_cgd", "optax")):
        parser.error('jax-cgd is not installed: pip install -e ".[jax]"')
    rows = measure(args.rounds)
    heads = ("optimizer", "ms", "x Adam of its framework", "first step, s")
    show("One batch", heads, map(_cells, rows.items()))
    print(f"Error of jax-cgd's first step: {rows['acgd, jax']['step_error']:.1e}")
    data = {"rounds": args.rounds, "rows": rows}
    write_result(args.out / "jax_cgd.json", data, ("jax", "jax-cgd"))


def _cells(named: tuple[str, dict]) -> tuple[str, ...]:
    name, row = named
    if "failure" in row:
        return name, f"fails: {row['failure']}", "", f"{row['first_s']:.2f}"
    times = f"{1e3 * row['median_s']:.1f}", f"{row['relative_to_adam']:.2f}"
    return name, *times, f"{row['first_s']:.2f}"


if __name__ == "__main__":
    main()
