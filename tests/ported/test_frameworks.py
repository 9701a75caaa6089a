"""Programs that leave their loop to a framework."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from difference_steps import DifferenceSteps
from torch import Tensor, nn

from compopt import ACGD, ConjugateGradient, MicroBatches

LR = 0.01
EXACT = ConjugateGradient(rtol=1e-12, max_iter=300)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Ignore the frameworks' own warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Gan:
    """Networks, and batches with their noise."""

    def __init__(self, num_batches: int) -> None:
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        self.critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        self.batches = [(torch.randn(4, 2), torch.randn(4, 2)) for _ in range(num_batches)]
        self.optimizer = ACGD(
            self.generator.parameters(), self.critic.parameters(), lr=LR, solver=EXACT
        )
        self.truth = DifferenceSteps([self.generator], [self.critic], LR)

    def loss(self, real: Tensor, noise: Tensor) -> Tensor:
        return self.critic(real).mean() - self.critic(self.generator(noise)).mean()


def micro_batches(losses: list[Callable[[], Tensor]]) -> MicroBatches:
    return MicroBatches(loss() for loss in losses)


def test_accelerate_with_accumulation_evaluates_every_part_of_a_batch():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    gan = Gan(num_batches=4)
    prepared = accelerator.prepare(gan.generator, gan.critic, gan.optimizer)[-1]
    seen: list[tuple[Tensor, Tensor]] = []
    for batch in gan.batches:
        with accelerator.accumulate(gan.generator, gan.critic):
            seen.append(batch)
            if accelerator.sync_gradients:
                whole = [torch.cat(parts) for parts in zip(*seen, strict=True)]
                losses = [partial(gan.loss, *part) for part in seen]
                with gan.truth.expected(partial(gan.loss, *whole)):
                    prepared.step(partial(micro_batches, losses))
                seen = []
    assert gan.truth.num_checked == 2


def test_lightning_in_two_phases_with_clipping():
    lightning = pytest.importorskip("lightning")
    gan, limit = Gan(num_batches=3), 0.05
    norms = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.critic = gan.generator, gan.critic

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return gan.optimizer

        def training_step(self, batch: list[Tensor], index: int) -> None:
            wrapped = self.optimizers()
            wrapped.optimizer.backward(gan.loss(*batch))
            self.clip_gradients(wrapped, gradient_clip_val=limit)
            grads = [
                param.grad for net in (gan.generator, gan.critic) for param in net.parameters()
            ]
            norms.append(float(torch.cat([grad.view(-1) for grad in grads]).norm()))
            wrapped.step()

    reference = Gan(num_batches=3)
    for batch in reference.batches:
        reference.optimizer.backward(reference.loss(*batch))
        params = [*reference.generator.parameters(), *reference.critic.parameters()]
        nn.utils.clip_grad_norm_(params, limit)
        reference.optimizer.step()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.utils.data.TensorDataset(*map(torch.cat, zip(*gan.batches, strict=True)))
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=4))
    assert norms == pytest.approx([limit] * 3, rel=1e-4)
    for network, other in ((gan.generator, reference.generator), (gan.critic, reference.critic)):
        for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
