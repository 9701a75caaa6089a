"""Pairs of networks by name."""

import torch
from torch import nn

from benchmarks.cifar10 import dcgan, resnet
from benchmarks.cifar10.config import NetworkConfig
from benchmarks.networks import SmallCritic, SmallGenerator

PAIRS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "small": (SmallGenerator, SmallCritic),
    "dcgan": (dcgan.Generator, dcgan.Critic),
    "dcgan16": (dcgan.Generator16, dcgan.Critic16),
    "sn-resnet": (resnet.Generator, resnet.Critic),
}


def build_networks(
    config: NetworkConfig, seed: int, *, dropout: float = 0.0
) -> tuple[nn.Module, nn.Module]:
    """Return generator and critic with their published initialisation.

    All cells of a seed start from the same weights.

    Args:
        config: kind and width of the pair.
        seed: seed of the initial weights.
        dropout: dropout probability in the critic.
    """
    make_generator, make_critic = PAIRS[config.kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = make_generator(config.latent_size, width=config.width)
        critic = make_critic(width=config.width, dropout=dropout)
    return generator, critic
