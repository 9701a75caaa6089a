"""Names of methods and distances in words."""

from benchmarks.cifar10.choose import TUNED

OPTIMIZERS = {
    "acgd": "ACGD",
    "control": "control",
    "adam": "Adam",
    "extra-adam": "ExtraAdam",
}
LOSSES = {
    "wgan": "Wasserstein loss",
    "bce": "cross entropy",
    "non-saturating": "non-saturating loss",
    "hinge": "hinge loss",
}
TERMS = {
    "wgan-gp": "gradient penalty",
    "lazy-r1": "lazy R1",
    "spectral-norm": "spectral norm",
    "advas": "AdvAs",
    "dragan": "DRAGAN",
    "srgan": "SR-GAN",
}
DISTANCES = {
    "fd_cifar10net_v1": "CIFAR-10 classifier",
    "fd_effnetlite0_r96_p320": "EfficientNet-Lite0",
}
"""The networks of the Frechet distances; the first one leads."""

CHOICES = {
    "lr": "learning rate",
    "lr_ratio": "critic's rate over it",
    "interaction": "strength",
    "critic_steps": "critic steps",
    "betas": "momentum",
    "term.coefficient": "coefficient",
}
"""What trials choose. The strength is a multiple of the learning rate."""


def parts(method: str) -> tuple[str, str]:
    """Return a method (optimizer_loss_term) in words: the optimizer with its term, and the loss."""
    optimizer, loss, term = method.split("_")
    kind = optimizer.removesuffix(TUNED)
    name = OPTIMIZERS.get(kind, kind)
    name = name if kind == optimizer else f"tuned {name}"
    return name if term == "none" else f"{name} with {TERMS.get(term, term)}", LOSSES.get(
        loss, loss
    )


def words(method: str) -> str:
    """Return a method in words."""
    return ", ".join(parts(method))


def compared(one: str, other: str) -> tuple[str, str]:
    """Return the start of a sentence about ``one``, and the words for what it is compared with."""
    (name, loss), (second, second_loss) = parts(one), parts(other)
    where = "" if loss == second_loss else f" on the {second_loss}"
    article = "the " if second.endswith("control") else ""
    return f"On the {loss} {name}", f"{article}{second}{where}"


def over(one: str, other: str) -> str:
    """Return the label of a ratio."""
    (name, loss), (second, second_loss) = parts(one), parts(other)
    return f"{name} / {second}, {loss}" if loss == second_loss else f"{words(one)} / {words(other)}"
