"""A GAN on a ring of Gaussians, trained by several processes that can be killed at any time.

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --standalone --nproc-per-node 2 --max-restarts 10 examples/distributed_gan.py

Without the variable, restarted processes may read the address of the previous processes from
torchrun's store, and fail to connect.

Each process computes its part of every batch. After each step the first process writes a checkpoint
atomically. When a process dies, torchrun restarts all of them and they resume from the checkpoint.
Batches depend only on the step number, so the result is bitwise that of an uninterrupted run.
"""

import argparse
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from compopt import ACGD, load_checkpoint, save_checkpoint


def network(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def batch(step: int, size: int) -> tuple[Tensor, Tensor]:
    """Return this rank's part of the real samples and the noise of a step."""
    random = torch.Generator().manual_seed(step)
    angle = torch.randint(8, (size,), generator=random) * torch.pi / 4
    real = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    real = real + 0.05 * torch.randn(size, 2, generator=random)
    noise = torch.randn(size, 8, generator=random)
    part = slice(dist.get_rank(), None, dist.get_world_size())
    return real[part], noise[part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("out/distributed_gan"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"

    dist.init_process_group("gloo")
    torch.manual_seed(0)
    generator, critic = network(8, 32, 32, 2), network(2, 32, 32, 1)
    optimizer = ACGD(
        generator.parameters(),
        critic.parameters(),
        lr=1e-3,
        warm_start=True,
        process_group=dist.group.WORLD,
    )
    parts: dict[str, Any] = {"generator": generator, "critic": critic, "optimizer": optimizer}
    first = 0
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        first = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    (args.out / f"rank{dist.get_rank()}.pid").write_text(str(os.getpid()))

    for step in range(first, args.steps):
        real, noise = batch(step, args.batch)
        loss = optimizer.step(critic(real).mean() - critic(generator(noise)).mean())
        if dist.get_rank() == 0:
            saved = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(checkpoint, {"step": step + 1, **saved})
            if step + 1 == args.steps:
                print(f"loss {loss:.4f}; {optimizer.last_step}")
    if dist.get_rank() == 0:
        print(f"{args.steps - first} steps since the last start")
    # No rank may exit while another writes.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
