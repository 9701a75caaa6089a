"""Configuration of a cell: all hyperparameters of one run."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmarks.cifar10.errors import BenchmarkError, require
from benchmarks.cifar10.losses import LOSSES
from benchmarks.cifar10.optimizers import OptimizerConfig
from benchmarks.cifar10.terms import TermConfig

ENDPOINT = 3
"""How many of the last points of a run its endpoint is the mean of: less noisy than the last."""


@dataclass
class NetworkConfig:
    """A pair of networks.

    Attributes:
        kind: "small" (the published small WGAN), "dcgan", "sn-resnet", or "dcgan16", the DCGAN pair
            with one layer less, for images of 16 pixels.
        width: multiplies all numbers of channels; 1 is as published.
        latent_size: length of the noise vector.
    """

    kind: Literal["small", "dcgan", "dcgan16", "sn-resnet"] = "dcgan"
    width: float = 1.0
    latent_size: int = 128

    @property
    def image_size(self) -> int:
        """Side length of the images in pixels."""
        return 16 if self.kind == "dcgan16" else 32

    def __post_init__(self) -> None:
        require(self, "network.width", self.width > 0, "positive")
        require(self, "network.latent_size", self.latent_size > 0, "positive")


@dataclass
class EvaluationConfig:
    """When and how samples are evaluated.

    Attributes:
        at: steps of the points of the curves; the last step always has one.
        points: number of further points, at equal parts of the run's budget; the last is its end.
        images: number of samples for a point of the curves.
        final_images: number of samples after the last step.
        metrics: names for `benchmarks.metrics.evaluate`, for the curves; none to skip it.
        final_metrics: names of metrics after the last step.
        endpoint_metrics: additional metrics of the averaged generator at the last three ``points``.
        ema_images: horizon of the averaged generator, in images: the weight of a past step falls by
            a factor e over this number of generated images, for any batch size.
        norm_images: number of noise vectors to recompute batch normalization statistics from before
            sampling.
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
            require(self, f"evaluation.{name}", getattr(self, name) >= 1, "1 or more")
        require(self, "evaluation.points", self.points >= 0, "0 or more")
        require(
            self,
            "evaluation.points",
            self.points > 0 or not self.endpoint_metrics,
            "1 or more with `endpoint_metrics`, which judge the last ones",
        )
        require(self, "evaluation.ema_images", self.ema_images > 0, "positive")


@dataclass
class CostConfig:
    """Cost of training, in steps of alternating Adam on the same networks, without a term.

    Measured once by ``python -m benchmarks.cifar10 costs``, so that the same budget allows the same
    training on any machine, under any load.

    Attributes:
        step: cost of a step without its mixed products.
        product: cost of each mixed product.
    """

    step: float = 1.0
    product: float = 0.0

    def __post_init__(self) -> None:
        require(self, "cost.step", self.step > 0, "positive")
        require(self, "cost.product", self.product >= 0, "0 or positive")


@dataclass
class RunConfig:
    """One run.

    Attributes:
        name: name of the cell and its folder.
        optimizer_name: the optimizer's row in the tables.
        term_name: the term's column in the tables.
        choices: values drawn for a trial of a search, by name of the option.
        steps: maximum number of generator steps.
        budget: maximum cost of training, in the unit of ``cost``; None for no limit.
        cost: cost of this cell's steps.
        batch_size: number of images in a draw.
        threads: number of torch threads; sums, and so results, depend on it.
    """

    name: str = "cell"
    optimizer_name: str = ""
    term_name: str = ""
    choices: dict[str, Any] = field(default_factory=dict)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: str = "wgan"
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
            require(self, name, getattr(self, name) >= 1, "1 or more")
        require(self, "budget", self.budget is None or self.budget > 0, "positive")
        require(self, "loss", self.loss in LOSSES, f"one of {[*LOSSES]}")
        if self.evaluation.points and self.budget is None:
            raise BenchmarkError(
                "`evaluation.points` must be 0 without a `budget`, which they divide."
            )
        if self.optimizer.is_competitive and not LOSSES[self.loss].is_zero_sum:
            raise BenchmarkError(
                f"{self.optimizer.kind} needs a zero-sum loss, got {self.loss!r}: a loss for each "
                "player gives an unsymmetric system."
            )

    @property
    def method(self) -> str:
        """Name of the method, which all its seeds and trials share."""
        return f"{self.optimizer_name}_{self.loss}_{self.term_name}"

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as plain dictionaries, lists and numbers."""
        plain = asdict(self)
        plain["optimizer"]["betas"] = list(self.optimizer.betas)
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Return the configuration from the result of :meth:`as_dict`."""
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
    """Return a line for each leaf value that differs between two configurations."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        lines = []
        for key in dict.fromkeys((*stored, *asked)):
            inner = f"{path}.{key}" if path else str(key)
            lines += differences(stored.get(key, "absent"), asked.get(key, "absent"), inner)
        return lines
    return [] if stored == asked else [f"{path}: stored {stored!r}, asked {asked!r}"]
