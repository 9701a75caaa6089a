"""A GAN on two Gaussians."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


@dataclass(frozen=True)
class MixtureGAN:
    """Networks, data and loss of the two-Gaussian GAN of the CGD paper.

    Attributes:
        generator: maps [n, 512] to [n, 2]; four hidden layers of 128 ReLU.
        critic: maps [n, 2] to [n, 1]; four hidden layers of 128 ReLU.
        modes: [2, 2] means of the two Gaussians.
        sigma: standard deviation of both Gaussians.
        batch: number of real samples, and of generated ones, per loss.
        random: random number generator for noise and data.
    """

    generator: nn.Module
    critic: nn.Module
    modes: Tensor
    sigma: float
    batch: int
    random: torch.Generator = field(repr=False)

    def fake(self, count: int) -> Tensor:
        """Return ``count`` generated points [count, 2], with their graph."""
        return self.generator(torch.randn(count, 512, generator=self.random))  # type: ignore[no-any-return]

    def real(self, count: int) -> Tensor:
        """Return ``count`` data points [count, 2] from equally likely modes."""
        which = torch.randint(2, (count,), generator=self.random)
        noise = torch.randn(count, 2, generator=self.random)
        return self.modes[which] + self.sigma * noise

    def loss(self) -> Tensor:
        """Return the zero-sum cross entropy of a new batch, which the generator lowers."""
        real, fake = self.critic(self.real(self.batch)), self.critic(self.fake(self.batch))
        return -softplus(-real).mean() - softplus(fake).mean()

    @torch.no_grad()
    def mode_shares(self, count: int = 1000) -> tuple[float, float]:
        """Return the shares of generated points within three sigmas of each mode."""
        distances = torch.cdist(self.fake(count), self.modes)
        near = (distances < 3 * self.sigma).float().mean(0)
        return float(near[0]), float(near[1])


def two_gaussian_gan(seed: int = 0) -> MixtureGAN:
    """Return the two-Gaussian GAN with orthogonal weights of gain 0.8, modes (0, 1) and (1, 1)/√2.

    References:
        Schäfer and Anandkumar (2019), Section 4. https://arxiv.org/abs/1905.12103
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator, critic = _network(512, 2), _network(2, 1)
    root = 1 / math.sqrt(2)
    return MixtureGAN(
        generator=generator,
        critic=critic,
        modes=torch.tensor([[0.0, 1.0], [root, root]]),
        sigma=0.1,
        batch=256,
        random=torch.Generator().manual_seed(seed),
    )


def _network(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, last in zip([inputs, 128, 128, 128], [128] * 4, strict=True):
        layers += [nn.Linear(first, last), nn.ReLU()]
    layers.append(nn.Linear(128, outputs))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=0.8)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
