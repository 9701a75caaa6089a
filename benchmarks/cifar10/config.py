"""What a cell is: every hyperparameter of one run, and nothing else."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmarks.cifar10.errors import BenchmarkError

OptimizerKind = Literal[
    "adam-simultaneous", "adam-alternating", "extra-adam", "optimistic-adam", "cgd", "acgd"
]
LossKind = Literal["wgan", "bce", "non-saturating", "hinge"]
TermKind = Literal[
    "none",
    "wgan-gp",
    "r1",
    "dragan",
    "spectral-norm",
    "srgan",
    "diversity",
    "advas",
    "l2",
    "dropout",
]

COMPETITIVE = ("cgd", "acgd")
ENDPOINT = 3
"""How many of the last points of a run its endpoint is the mean of: less noisy than the last."""
ZERO_SUM = ("wgan", "bce")


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise BenchmarkError(f"`{name}` must be {rule}, got {value!r}.")


@dataclass
class NetworkConfig:
    """A pair of networks.

    Attributes:
        kind: "small" (the published small WGAN), "dcgan", "sn-resnet", or "dcgan16", the DCGAN pair
            with one layer less, which trains on images halved to 16 pixels.
        width: multiplies all numbers of channels; 1 is as published.
        latent_size: length of the noise vector.
    """

    kind: Literal["small", "dcgan", "dcgan16", "sn-resnet"] = "dcgan"
    width: float = 1.0
    latent_size: int = 128

    @property
    def image_size(self) -> int:
        """Pixels of a side of the images."""
        return 16 if self.kind == "dcgan16" else 32

    def __post_init__(self) -> None:
        _require(self.width > 0, "network.width", self.width, "positive")
        _require(self.latent_size > 0, "network.latent_size", self.latent_size, "positive")


@dataclass
class OptimizerConfig:
    """An optimizer with its settings; those of other kinds are ignored.

    Attributes:
        kind: which.
        lr: of the generator.
        lr_ratio: of the critic's learning rate to the generator's.
        betas: of the Adam family.
        eps: None is the optimizer's own.
        critic_steps: of "adam-alternating", for each step of the generator.
        beta: of "acgd".
        rtol: relative residual at which "cgd" and "acgd" stop their solver.
        max_iter: the solver's limit.
        curvature_share: of the batch from which "cgd" and "acgd" take second derivatives.
        interaction: step size with which the interaction of "cgd" and "acgd" counts, as a multiple
            of ``lr``; 0 is the same step without interaction, their control.
    """

    kind: OptimizerKind = "acgd"
    lr: float = 1e-4
    lr_ratio: float = 1.0
    betas: tuple[float, float] = (0.5, 0.99)
    eps: float | None = None
    critic_steps: int = 1
    beta: float = 0.99
    rtol: float = 1e-2
    max_iter: int = 20
    curvature_share: float = 1.0
    interaction: float = 1.0

    def __post_init__(self) -> None:
        # A tuple from a file arrives as a list.
        self.betas = (float(self.betas[0]), float(self.betas[1]))
        _require(self.lr > 0, "optimizer.lr", self.lr, "positive")
        _require(self.lr_ratio > 0, "optimizer.lr_ratio", self.lr_ratio, "positive")
        _require(all(0 <= b < 1 for b in self.betas), "optimizer.betas", self.betas, "in [0, 1)")
        _require(
            0 < self.curvature_share <= 1,
            "optimizer.curvature_share",
            self.curvature_share,
            "in (0, 1]",
        )
        _require(self.interaction >= 0, "optimizer.interaction", self.interaction, "0 or positive")
        _require(
            self.interaction == 1 or self.kind in COMPETITIVE,
            "optimizer.interaction",
            self.interaction,
            f"1 for {self.kind}; only {COMPETITIVE} have an interaction",
        )
        _require(self.critic_steps >= 1, "optimizer.critic_steps", self.critic_steps, "1 or more")
        _require(
            self.critic_steps == 1 or self.kind == "adam-alternating",
            "optimizer.critic_steps",
            self.critic_steps,
            f"1 for {self.kind}; only adam-alternating takes several",
        )


@dataclass
class TermConfig:
    """An explicit term.

    Attributes:
        kind: which.
        options: its settings by name, such as ``coefficient``; what is not given is as published.
    """

    kind: TermKind = "none"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluationConfig:
    """When and how samples are judged.

    Attributes:
        at: steps at which the curves have a point; the last step always has one.
        points: further points, at equal parts of the run's budget; the last is its end.
        images: number of samples for a point of the curves.
        final_images: number of samples after the last step.
        metrics: names for `benchmarks.metrics.evaluate`, for the curves; none to skip it.
        final_metrics: likewise after the last step.
        endpoint_metrics: further ones for the averaged generator at the last three ``points``.
        ema_images: horizon of the averaged generator that is judged beside the raw one: its weights
            of the past fall by a factor e over so many images of the generator, whatever the batch.
        norm_images: noise vectors from which batch normalization takes its statistics anew before
            samples are made.
    """

    at: list[int] = field(default_factory=list)
    points: int = 0
    images: int = 2000
    final_images: int = 10000
    metrics: list[str] = field(default_factory=list)
    final_metrics: list[str] = field(default_factory=list)
    endpoint_metrics: list[str] = field(default_factory=list)
    ema_images: float = 64000.0
    norm_images: int = 2048

    def __post_init__(self) -> None:
        for name in ("images", "final_images", "norm_images"):
            value = getattr(self, name)
            _require(value >= 1, f"evaluation.{name}", value, "1 or more")
        _require(self.points >= 0, "evaluation.points", self.points, "0 or more")
        _require(
            self.points > 0 or not self.endpoint_metrics,
            "evaluation.points",
            self.points,
            "1 or more with `endpoint_metrics`, which judge the last ones",
        )
        _require(self.ema_images > 0, "evaluation.ema_images", self.ema_images, "positive")


@dataclass
class CostConfig:
    """What training costs, in steps of alternating Adam on the same networks, without a term.

    Measured once by ``python -m benchmarks.cifar10 costs``, so that the same budget buys the same
    training on any machine, whatever else runs there.

    Attributes:
        step: cost of a step without its mixed products.
        product: of each mixed product.
    """

    step: float = 1.0
    product: float = 0.0

    def __post_init__(self) -> None:
        _require(self.step > 0, "cost.step", self.step, "positive")
        _require(self.product >= 0, "cost.product", self.product, "0 or positive")


@dataclass
class RunConfig:
    """One run.

    Attributes:
        name: of the cell and its folder.
        optimizer_name: the optimizer's row in the tables.
        term_name: the term's column in the tables.
        choices: what a trial of a search has drawn, by name of the option.
        steps: of the generator, at most.
        budget: what training may cost, in the unit of ``cost``; None for no such limit.
        cost: of this cell.
        batch_size: images of a draw.
        threads: of torch; sums, and so results, depend on it.
    """

    name: str = "cell"
    optimizer_name: str = ""
    term_name: str = ""
    choices: dict[str, Any] = field(default_factory=dict)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossKind = "wgan"
    term: TermConfig = field(default_factory=TermConfig)
    seed: int = 0
    steps: int = 1000
    budget: float | None = None
    cost: CostConfig = field(default_factory=CostConfig)
    batch_size: int = 64
    threads: int = 1
    device: str = "cpu"
    log_every: int = 20
    checkpoint_every: int = 500
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "threads", "log_every", "checkpoint_every"):
            value = getattr(self, name)
            _require(value >= 1, name, value, "1 or more")
        _require(self.budget is None or self.budget > 0, "budget", self.budget, "positive")
        _require(
            self.evaluation.points == 0 or self.budget is not None,
            "evaluation.points",
            self.evaluation.points,
            "0 without a `budget`, which they divide",
        )
        if self.optimizer.kind in COMPETITIVE and self.loss not in ZERO_SUM:
            raise BenchmarkError(
                f"{self.optimizer.kind} needs a zero-sum loss, one of {ZERO_SUM}, got "
                f"{self.loss!r}: a loss for each player gives an unsymmetric system."
            )

    @property
    def method(self) -> str:
        """What all seeds and trials share."""
        return f"{self.optimizer_name}_{self.loss}_{self.term_name}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        plain = asdict(self)
        plain["optimizer"]["betas"] = list(self.optimizer.betas)
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Return the configuration that :meth:`as_dict` was called on."""
        parts = {
            "network": NetworkConfig,
            "optimizer": OptimizerConfig,
            "term": TermConfig,
            "cost": CostConfig,
            "evaluation": EvaluationConfig,
        }
        try:
            return cls(**{**values, **{name: kind(**values[name]) for name, kind in parts.items()}})
        except (KeyError, TypeError) as error:
            raise BenchmarkError(f"This is no configuration of a run: {error}.") from error


def differences(stored: object, asked: object, path: str = "") -> list[str]:
    """Return a line for each leaf in which two configurations differ."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        lines = []
        for key in dict.fromkeys((*stored, *asked)):
            inner = f"{path}.{key}" if path else str(key)
            lines += differences(stored.get(key, "absent"), asked.get(key, "absent"), inner)
        return lines
    return [] if stored == asked else [f"{path}: stored {stored!r}, asked {asked!r}"]
