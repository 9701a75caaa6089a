"""Cost of each penalty, alone and inside ACGD: time and memory held by autograd graphs.

Run ``python -m benchmarks.penalties``. The networks are those of the published small CIFAR-10 WGAN.
Alone, a term and its gradient are compared with a plain critic step of Adam. Inside ACGD with one
solver iteration, a step with the term passed separately (``max_penalty=`` or ``min_penalty=``) and
one with the term in the loss are compared with a step without it; for terms that couple the
players, the two are different games. Projections follow every step. All take turns in one process,
and times are compared within a round. Memory is the most that graphs hold at once during a step: it
does not depend on the machine. With ``--device cuda`` clocks wait for the device.
"""

import statistics
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import (
    arguments,
    clock,
    device_of,
    in_turns,
    picture,
    ratios,
    show,
    write_result,
)
from benchmarks.networks import SmallCritic, SmallGenerator, random_batch
from compopt import ACGD, ConjugateGradient, penalties
from compopt.penalties import Penalty, sign_in_loss

LR = 1e-4

TERMS: dict[str, Penalty | None] = {
    "none": None,
    "Dragan": penalties.Dragan(),
    "WganGP": penalties.WganGP(),
    "GradientPenalty": penalties.GradientPenalty(),
    "R1": penalties.R1(),
    "R2": penalties.R2(),
    "WganGP, attached": penalties.WganGP(detach=False),
    "R2, attached": penalties.R2(detach=False),
    "AdvAs, fixed": penalties.AdvAs(coefficient=0.1),
    "AdvAs, self-scaling": penalties.AdvAs(),
    "Consistency": penalties.Consistency(),
    "BalancedConsistency": penalties.BalancedConsistency(),
    "Diversity": penalties.Diversity(),
    "Orthogonal": penalties.Orthogonal(),
    "SpectralPenalty": penalties.SpectralPenalty(),
    "L2": penalties.L2(),
}

PROJECTIONS: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
    "SpectralRegularizer, static": lambda critic: (
        penalties.SpectralRegularizer(critic, every=1).step
    ),
    "SpectralRegularizer, dynamic": lambda critic: (
        penalties.SpectralRegularizer(critic, mode="dynamic", every=1).step
    ),
    "WeightClipping": lambda critic: lambda: penalties.WeightClipping()(critic),
}


class Run:
    """Networks, a batch, and the ways to use one term or projection."""

    def __init__(self, name: str, batch_size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.generator, self.critic = SmallGenerator().to(device), SmallCritic().to(device)
        term = TERMS.get(name)
        self.project = PROJECTIONS[name](self.critic) if name in PROJECTIONS else None
        # A projection has no gradient, so it cannot be in the loss.
        self.kinds = ["alone", "beside", "inside"] if term else ["alone", "beside"]
        self.min_params = list(self.generator.parameters())
        self.max_params = list(self.critic.parameters())
        self.term = term
        self.player = (term.player or "max") if term else "max"
        # Fix the number of products, so that iteration counts do not affect the comparison.
        solver = ConjugateGradient(rtol=0.0, max_iter=1)
        self.acgd = ACGD(self.min_params, self.max_params, lr=LR, solver=solver)
        self.adam = torch.optim.Adam(self.max_params, lr=LR, maximize=True)
        self._batch_size = batch_size
        self._device = device
        self._random = torch.Generator().manual_seed(1)
        # The generator of the terms, which draw random numbers on the device of their points.
        self._noise = torch.Generator(device).manual_seed(1)
        self.draw()

    def draw(self) -> None:
        """Draw the next batch."""
        batch = random_batch(self._batch_size, 128, self._random)
        self.images, self.noise = (part.to(self._device) for part in batch)

    def loss(self) -> tuple[Tensor, Tensor]:
        """Return the loss on the batch, and its fake samples."""
        fake = self.generator(self.noise)
        return self.critic(self.images).mean() - self.critic(fake).mean(), fake

    def penalty(self, loss: Tensor, fake: Tensor) -> Tensor:
        """Return the term on the batch."""
        return self.term.on(
            critic=self.critic,
            module=self.critic,
            real=self.images,
            points=self.images,
            fake=fake,
            loss=loss,
            min_params=self.min_params,
            generator=self._noise,
        )

    def prepare_alone(self) -> Callable[[], None]:
        """Return a plain critic step, a projection, or a term with its player's gradient."""
        if self.term is None:
            return self.project or self._critic_step
        loss, fake = self.loss()
        params = {"min": self.min_params, "max": self.max_params}[self.player]

        def evaluate() -> None:
            torch.autograd.grad(self.penalty(loss, fake), params, allow_unused=True)

        return evaluate

    def _critic_step(self) -> None:
        self.adam.zero_grad()
        with torch.no_grad():
            fake = self.generator(self.noise)
        (self.critic(self.images).mean() - self.critic(fake).mean()).backward()
        self.adam.step()

    def step(self, kind: str) -> Callable[[], None]:
        """Return the function to time for a kind of use; for "alone" it depends on the batch."""
        return self._critic_step if kind == "alone" else getattr(self, kind)

    def beside(self) -> None:
        """Take an ACGD step with the term passed separately, or with a projection after it."""
        loss, fake = self.loss()
        if self.term is None:
            self.acgd.step(loss)
        else:
            term = self.penalty(loss, fake)
            self.acgd.step(loss, **{f"{self.player}_penalty": term})
        if self.project is not None:
            self.project()

    def inside(self) -> None:
        """Take an ACGD step with the term in the loss."""
        loss, fake = self.loss()
        term = self.penalty(loss, fake)
        self.acgd.step(loss + sign_in_loss(self.player) * term)


class HeldBytes:
    """Current and peak bytes of the storage that graphs hold."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self._holders: Counter[int] = Counter()

    def pack(self, tensor: Tensor) -> list[Tensor]:
        """Count a tensor that a graph saves; each storage counts once."""
        kept = _Kept([tensor.detach()])
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        self._holders[key] += 1
        if self._holders[key] == 1:
            self.now += size
            self.peak = max(self.peak, self.now)
        weakref.finalize(kept, self._release, key, size)
        return kept

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self.now -= size


class _Kept(list):
    """A list that supports weak references."""


@contextmanager
def counting_held_bytes() -> Iterator[HeldBytes]:
    """Count the storage held by graphs that are created inside the context."""
    held = HeldBytes()
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept[0]):
        yield held


def measure(
    names: list[str], rounds: int, batch_size: int, device: torch.device
) -> dict[str, dict]:
    """Time every term in turns; return figures for each."""
    runs = {name: Run(name, batch_size, device) for name in names}
    works = {(name, kind): run.step(kind) for name, run in runs.items() for kind in run.kinds}

    def prepare(key: tuple[str, str]) -> Callable[[], None] | None:
        runs[key[0]].draw()
        return runs[key[0]].prepare_alone() if key[1] == "alone" else None

    taken = in_turns(
        works, rounds, seconds=clock(device), prepare=prepare, warm_up=1, what="rounds"
    )
    times = {name: {kind: taken[name, kind] for kind in run.kinds} for name, run in runs.items()}
    rows: dict[str, dict] = {}
    for name, run in runs.items():
        rows[name] = {
            "couples": bool(run.term and run.term.couples),
            "player": run.player,
            "times_s": times[name],
        }
        for kind in run.kinds:
            base = times["none"]["alone" if kind == "alone" else "beside"]
            rows[name][f"{kind}_relative"] = statistics.median(ratios(times[name][kind], base))
            if kind != "alone":
                with counting_held_bytes() as held:
                    getattr(run, kind)()
                rows[name][f"{kind}_held_mb"] = held.peak / 1e6
    return rows


COLUMNS = {
    "alone_relative": "alone, critic step = 1",
    "beside_relative": "beside the loss, ACGD step = 1",
    "inside_relative": "in the loss, ACGD step = 1",
    "beside_held_mb": "beside: MB held",
    "inside_held_mb": "in the loss: MB held",
}


def cells(name: str, row: dict) -> list[str]:
    """Return the figures of a term as a row of the table."""
    figures = [(f"{row[key]:.2f}" if key in row else "") for key in COLUMNS]
    return [name + (" (couples)" if row["couples"] else ""), *figures]


def plot(rows: dict[str, dict], path: Path) -> None:
    """Plot time alone, and time and memory with the term beside and in the loss."""
    names = [name for name in rows if name != "none"]
    labels = [name + (" *" if rows[name]["couples"] else "") for name in names]
    with picture(path, (13, 0.42 * len(names) + 1.8), columns=3) as (figure, axes):
        _draw(rows, names, labels, figure, axes[0])


def _draw(
    rows: dict[str, dict], names: list[str], labels: list[str], figure: Any, axes: Any
) -> None:
    alone, time, memory = axes
    positions = range(len(names))
    alone.barh(positions, [rows[name]["alone_relative"] for name in names], color="0.6")
    alone.set_title("the term and its gradient", loc="left")
    alone.set_xlabel("time, plain critic step = 1")
    base = {"relative": 1.0, "held_mb": rows["none"]["beside_held_mb"]}
    for axis, unit in ((time, "relative"), (memory, "held_mb")):
        for shift, kind, label, color in (
            (-0.2, "beside", "beside the loss", "C0"),
            (0.2, "inside", "in the loss", "C1"),
        ):
            values = [rows[name].get(f"{kind}_{unit}", 0.0) for name in names]
            axis.barh([p + shift for p in positions], values, 0.38, color=color, label=label)
        axis.axvline(base[unit], color="black", linewidth=0.8, label="no term")
    time.set_title("a step of ACGD", loc="left")
    time.set_xlabel("time, step without term = 1")
    memory.set_title("what its graphs hold", loc="left")
    memory.set_xlabel("MB")
    figure.legend(*memory.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    for axis in axes:
        axis.set_yticks(positions, labels if axis is alone else [])
        axis.invert_yaxis()
    figure.supxlabel("* couples the players: another game by each route", fontsize="small")


def main(argv: list[str] | None = None) -> dict[str, dict]:
    """Measure, print, and write a data file and a plot; return the rows."""
    parser = arguments(__doc__, rounds=5, device=True)
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch")
    every = [*TERMS, *PROJECTIONS]
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="TERM")
    args = parser.parse_args(argv)
    names = ["none", *(name for name in args.only if name != "none")]
    device = device_of(parser, args)
    rows = measure(names, args.rounds, args.batch_size, device)
    show("Cost of penalties", ("term", *COLUMNS.values()), (cells(n, r) for n, r in rows.items()))
    workload = {"networks": "published small CIFAR-10 WGAN", "batch_size": args.batch_size}
    workload |= {"solver_iterations": 1, "rounds": args.rounds}
    stem = "penalties" if device.type == "cpu" else f"penalties_{device.type}"
    write_result(args.out / f"{stem}.json", {"workload": workload, "rows": rows})
    plot(rows, args.out / f"{stem}.png")
    return rows


if __name__ == "__main__":
    main()
