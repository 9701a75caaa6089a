"""Errors of steps in lower precision, compared with float32 and float64.

``python -m benchmarks.precision`` writes ``benchmarks/results/precision.json``, shown in the guide,
and prints the errors. The networks are convolutional, on random images. After ten float32 steps,
all forms take the same step.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.harness import RESULTS, arguments, markdown_table, write_result
from compopt import ACGD, ConjugateGradient

RESULT = RESULTS / "precision.json"
FORMS = ("float32", "bf16 autocast", "fp16 autocast and scaler", "bf16 parameters")


def networks() -> tuple[nn.Module, nn.Module]:
    """Return a generator of 16 x 16 images and a critic."""
    generator = nn.Sequential(
        nn.Linear(16, 32 * 4 * 4),
        nn.Unflatten(1, (32, 4, 4)),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    )
    critic = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 1),
    )
    return generator, critic


class Trial:
    """Two networks, their optimizer, and a batch; copied for each form of a step."""

    def __init__(self, seed: int = 0, num_steps: int = 10) -> None:
        torch.manual_seed(seed)
        self.generator, self.critic = networks()
        self.real, self.noise = torch.rand(32, 3, 16, 16) * 2 - 1, torch.randn(32, 16)
        self.optimizer = self._optimizer()
        for _ in range(num_steps):
            self.optimizer.step(self.loss())

    def _optimizer(self) -> ACGD:
        solver = ConjugateGradient(rtol=0.0, max_iter=3, check_last=True)
        return ACGD(self.generator.parameters(), self.critic.parameters(), lr=1e-3, solver=solver)

    def loss(self) -> Tensor:
        """Return the zero-sum loss of logistic scores, in at least float32."""
        real, fake = self.critic(self.real), self.critic(self.generator(self.noise))
        wide = torch.promote_types(real.dtype, torch.float32)
        softplus = nn.functional.softplus
        return -softplus(-real.to(wide)).mean() - softplus(fake.to(wide)).mean()

    def to(self, dtype: torch.dtype) -> "Trial":
        """Return a copy whose networks and data are of ``dtype``."""
        twin = copy.deepcopy(self)
        state = twin.optimizer.state_dict()
        twin.generator.to(dtype)
        twin.critic.to(dtype)
        twin.real, twin.noise = twin.real.to(dtype), twin.noise.to(dtype)
        twin.optimizer = twin._optimizer()
        twin.optimizer.load_state_dict(state)
        return twin

    def move(self, step: Callable[["Trial"], None]) -> dict[str, Tensor]:
        """Take a step and return both players' moves."""
        networks = {"generator": self.generator, "critic": self.critic}
        before = {name: flat(network) for name, network in networks.items()}
        step(self)
        return {name: flat(network) - before[name] for name, network in networks.items()}


def flat(network: nn.Module) -> Tensor:
    """Return a network's parameters as one float64 vector."""
    return torch.cat([param.detach().double().flatten() for param in network.parameters()])


def plain(trial: Trial) -> None:
    """Step without autocast."""
    trial.optimizer.step(trial.loss())


def bf16(trial: Trial) -> None:
    """Step with bfloat16 autocast in the forward pass."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = trial.loss()
    trial.optimizer.step(loss)


def fp16(trial: Trial) -> None:
    """Step with float16 autocast in the forward pass and a scaled loss, in two phases."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = trial.loss()
    trial.optimizer.backward(loss, scaler=scaler)
    scaler.step(trial.optimizer)
    scaler.update()


def measure(seeds: int = 5) -> dict[str, dict[str, list[float]]]:
    """Return relative errors of moves against float64, by form and player."""
    results: dict[str, dict[str, list[float]]] = {
        form: {"generator": [], "critic": []} for form in FORMS
    }
    for seed in range(seeds):
        start = Trial(seed)
        truth = start.to(torch.float64).move(plain)
        moves = {
            "float32": copy.deepcopy(start).move(plain),
            "bf16 autocast": copy.deepcopy(start).move(bf16),
            "fp16 autocast and scaler": copy.deepcopy(start).move(fp16),
            "bf16 parameters": start.to(torch.bfloat16).move(plain),
        }
        for form, move in moves.items():
            for player, vector in move.items():
                error = torch.linalg.vector_norm(vector - truth[player])
                results[form][player].append(float(error / torch.linalg.vector_norm(truth[player])))
    return results


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians as a Markdown table."""
    rows = [
        [form, *(f"{sorted(errors)[len(errors) // 2]:.0e}" for errors in players.values())]
        for form, players in results.items()
    ]
    return markdown_table(["step", "generator's move", "critic's move"], rows)


def main() -> None:
    """Measure, write the result and print the table."""
    parser = arguments(__doc__, out=RESULT)
    parser.add_argument("--seeds", type=int, default=5, help="whose medians are shown")
    args = parser.parse_args()
    errors = measure(args.seeds)
    write_result(args.out, {"errors": errors})
    print(table(errors))


if __name__ == "__main__":
    main()
