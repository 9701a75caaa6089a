"""GANs of images as public programs write them, ported to one competitive optimizer."""

import pytest
import torch
from difference_steps import DifferenceSteps
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from compopt import ACGD, GMRES, ConjugateGradient, Game
from compopt.penalties import WganGP

LR = 0.01
EXACT = ConjugateGradient(rtol=1e-12, max_iter=300)
EXACT_PAIR = GMRES(rtol=1e-12, max_iter=300, restart=300)
SIZE = 6


def images() -> Tensor:
    return torch.rand(SIZE, 1, 4, 4) * 2 - 1


class ImageGenerator(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.ConvTranspose2d(2, 2, 2),
            nn.BatchNorm2d(2),
            nn.Softplus(),
            nn.ConvTranspose2d(2, 1, 2, 2),
            nn.Tanh(),
        )

    def sample(self) -> Tensor:
        return self(torch.randn(SIZE, 2, 1, 1))


class ImageCritic(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 2, 2, 2), nn.SiLU(), nn.Flatten(), nn.Linear(8, 1))


def test_dcgan_with_a_label_that_is_refilled_for_each_loss():
    """Each loss has a label of its own; the published program refills one tensor."""
    netG, netD = ImageGenerator(), ImageCritic()  # noqa: N806
    optimizer = ACGD(netG.parameters(), netD.parameters(), lr=LR, solver=EXACT)
    truth = DifferenceSteps([netG], [netD], LR)
    criterion = nn.BCEWithLogitsLoss()
    tracked = int(netG[1].num_batches_tracked)
    for _ in range(2):
        real, noise = images(), torch.randn(SIZE, 2, 1, 1)

        def loss(real=real, noise=noise):
            label = torch.full((SIZE,), 1.0)
            real_loss = criterion(netD(real).view(-1), label)
            label = torch.full((SIZE,), 0.0)
            # The critic lowers its two cross entropies, the generator raises them.
            return -real_loss - criterion(netD(netG(noise)).view(-1), label)

        with truth.expected(loss):
            optimizer.step(loss())
    assert truth.num_checked == 2
    # The statistics are those of the two forward passes that the program itself makes.
    assert int(netG[1].num_batches_tracked) == tracked + 2
    label = torch.full((SIZE,), 1.0)
    real_loss = criterion(netD(images()).view(-1), label)
    loss_of_refilled = -real_loss - criterion(netD(netG.sample()).view(-1), label.fill_(0.0))
    with pytest.raises(RuntimeError, match="If a label, a target or a buffer was refilled"):
        optimizer.step(loss_of_refilled)


def test_wgan_gp_with_five_critic_steps():
    """The critic's own steps are those of RMSProp with the averages of the competitive ones."""
    generator, critic = ImageGenerator(), ImageCritic()
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=LR, solver=EXACT)
    truth = DifferenceSteps([generator], [critic], LR)
    for step in range(12):
        alone = step % 6 != 5
        real = images()
        noise, mixing = torch.randn(SIZE, 2, 1, 1), torch.Generator().manual_seed(step)
        state = mixing.get_state()

        def game(real=real, noise=noise, alone=alone, mixing=mixing, state=state):
            mixing.set_state(state)
            fake = generator(noise)
            # The graph of the fakes is only needed where the generator moves too.
            fake = fake.detach() if alone else fake
            term = WganGP()(critic, real, fake, generator=mixing)
            return Game(critic(real).mean() - critic(fake).mean(), max_penalty=term)

        with truth.expected(game, "max" if alone else None):
            terms = game()
            if alone:
                optimizer.step(terms.loss, max_penalty=terms.max_penalty, player="max")
            else:
                optimizer.step(terms.loss, max_penalty=terms.max_penalty)
                assert optimizer.last_step.num_hvp > 0
    assert truth.num_checked == 12
    steps = [float(optimizer.state[next(n.parameters())]["step"]) for n in (generator, critic)]
    assert steps == [2, 12]


class Labelled(nn.Module):
    """A network that sees its input beside the embedding of a class."""

    def __init__(self, inputs: int, outputs: int, num_classes: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, 2)
        self.layers = nn.Sequential(nn.Linear(inputs + 2, 4), nn.Tanh(), nn.Linear(4, outputs))

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return self.layers(torch.cat([inputs, self.embedding(labels)], dim=1))


def test_conditional_gan_moves_the_classes_of_the_batch():
    generator, critic = Labelled(2, 2), Labelled(2, 1)
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=LR, solver=EXACT)
    truth = DifferenceSteps([generator], [critic], LR)
    for labels in (torch.tensor([0, 1, 0, 1]), torch.tensor([1, 1, 0, 0])):
        real, noise = torch.randn(4, 2), torch.randn(4, 2)

        def loss(real=real, noise=noise, labels=labels):
            scores = critic(real, labels), critic(generator(noise, labels), labels)
            return (
                functional.logsigmoid(scores[0]).mean() + functional.logsigmoid(-scores[1]).mean()
            )

        absent = [net.embedding.weight[2].clone() for net in (generator, critic)]
        with truth.expected(loss):
            optimizer.step(loss())
        for net, before in zip((generator, critic), absent, strict=True):
            assert torch.equal(net.embedding.weight[2], before)


def test_infogan_has_its_shared_term_beside_the_loss():
    """Generator and code head lower the same term: they are one player, and it is a penalty."""
    generator = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    trunk = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    validity, code_head = nn.Linear(4, 1), nn.Linear(4, 2)
    players = [generator, code_head], [trunk, validity]
    parameters = [[p for network in player for p in network.parameters()] for player in players]
    optimizer = ACGD(*parameters, lr=LR, solver=EXACT)
    truth = DifferenceSteps(*players, LR)
    for _ in range(2):
        real, noise, code = torch.randn(SIZE, 2), torch.randn(SIZE, 2), torch.arange(SIZE) % 2

        def game(real=real, noise=noise, code=code):
            hidden = trunk(generator(torch.cat([noise, functional.one_hot(code, 2)], dim=1)))
            loss = functional.logsigmoid(validity(trunk(real))).mean()
            loss = loss + functional.logsigmoid(-validity(hidden)).mean()
            return Game(loss, min_penalty=functional.cross_entropy(code_head(hidden), code))

        with truth.expected(game):
            terms = game()
            optimizer.step(terms.loss, min_penalty=terms.min_penalty)
    assert truth.num_checked == 2


def test_sngan_with_hinge_loss_as_a_pair():
    """Power iteration moves buffers at each forward pass; a step makes one for each batch."""
    generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    critic = nn.Sequential(
        spectral_norm(nn.Linear(2, 4)), nn.Tanh(), spectral_norm(nn.Linear(4, 1))
    )
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=LR, solver=EXACT_PAIR)
    truth = DifferenceSteps([generator], [critic], LR)
    for _ in range(2):
        real, noise = torch.randn(SIZE, 2), torch.randn(SIZE, 2)

        def pair(real=real, noise=noise):
            on_real, on_fake = critic(real), critic(generator(noise))
            loss_d = torch.relu(1 - on_real).mean() + torch.relu(1 + on_fake).mean()
            return -on_fake.mean(), loss_d

        with truth.expected(pair):
            optimizer.step(pair())
    assert truth.num_checked == 2
    norms = [torch.linalg.matrix_norm(critic[i].weight.detach(), ord=2) for i in (0, 2)]
    assert all(float(norm) < 1.6 for norm in norms)
