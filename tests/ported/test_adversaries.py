"""Games other than GANs: adaptation, codes, imitation, adversarial training."""

import pytest
import torch
from difference_steps import DifferenceSteps
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid

from compopt import ACGD, CGD, ConjugateGradient, Game, StepWarning

LR = 0.01
EXACT = ConjugateGradient(rtol=1e-12, max_iter=300)
SIZE = 6


def network(inputs: int, outputs: int, width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


class Reversal(torch.autograd.Function):
    """The layer of the published program: forwards nothing, backwards a changed sign."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return features.view_as(features)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * grad, None


class Dann:
    """Features, a classifier of labels and one of domains, with their data."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.features, self.label, self.domain = network(2, 3), nn.Linear(3, 2), network(3, 1)
        self.source, self.target = torch.randn(SIZE, 2), torch.randn(SIZE, 2) + 1
        self.classes = torch.arange(SIZE) % 2

    @property
    def players(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.features, self.label], [self.domain]

    @property
    def params(self) -> list[list[Tensor]]:
        return [[p for network in player for p in network.parameters()] for player in self.players]

    @property
    def all_params(self) -> list[Tensor]:
        return [param for player in self.params for param in player]

    def domain_loss(self, reversal=lambda features: features) -> Tensor:
        inputs = torch.cat([self.source, self.target])
        truth = torch.cat([torch.zeros(SIZE, 1), torch.ones(SIZE, 1)])
        return binary_cross_entropy_with_logits(self.domain(reversal(self.features(inputs))), truth)

    def label_loss(self) -> Tensor:
        return cross_entropy(self.label(self.features(self.source)), self.classes)


def test_dann_needs_no_reversal_layer():
    """Without interaction a step is the published one, which the layer's reversed sign gives."""
    weight = 0.3
    published, ported = Dann(), Dann()
    sgd = torch.optim.SGD(published.all_params, lr=0.1)
    reversed_loss = published.domain_loss(lambda features: Reversal.apply(features, weight))
    (published.label_loss() + reversed_loss).backward()
    sgd.step()
    # The classifier of domains has its own rate, as the weight stands before its loss too.
    optimizer = CGD(*ported.params, lr=(0.1, 0.1 / weight), interaction=0.0)
    optimizer.step(-weight * ported.domain_loss(), min_penalty=ported.label_loss())
    for ours, theirs in zip(ported.all_params, published.all_params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_dann_takes_competitive_steps():
    dann = Dann()
    optimizer = ACGD(*dann.params, lr=LR, solver=EXACT)
    truth = DifferenceSteps(*dann.players, LR)
    for _ in range(2):
        with truth.expected(lambda: Game(-dann.domain_loss(), min_penalty=dann.label_loss())):
            optimizer.step(-dann.domain_loss(), min_penalty=dann.label_loss())
    assert truth.num_checked == 2


def test_adversarial_autoencoder_of_three_networks():
    encoder, decoder, critic = network(4, 2), network(2, 4), network(2, 1)
    players = [encoder, decoder], [critic]
    optimizer = ACGD(
        [{"params": encoder.parameters()}, {"params": decoder.parameters()}],
        critic.parameters(),
        lr=LR,
        solver=EXACT,
    )
    truth = DifferenceSteps(*players, LR)
    for _ in range(2):
        data, prior = torch.randn(SIZE, 4), torch.randn(SIZE, 2)

        def game(data=data, prior=prior):
            codes = encoder(data)
            loss = logsigmoid(critic(prior)).mean() + logsigmoid(-critic(codes)).mean()
            return Game(loss, min_penalty=(decoder(codes) - data).square().mean())

        alone = decoder[0].weight.detach().clone()
        with truth.expected(game):
            terms = game()
            optimizer.step(terms.loss, min_penalty=terms.min_penalty)
        # It meets the critic only by way of the encoder's codes, so it takes its gradient step.
        assert not torch.equal(decoder[0].weight, alone)
    assert truth.num_checked == 2


def test_adversarial_imitation_interacts_through_the_score():
    """Sampled actions have no derivative; their log probabilities carry that of the players' both.

    With every action present in proportion to its probability, the estimate is the expectation.
    """
    num_actions = 3
    policy, critic = network(2, num_actions), network(2 + num_actions, 1)
    optimizer = ACGD(policy.parameters(), critic.parameters(), lr=LR, solver=EXACT)
    truth = DifferenceSteps([policy], [critic], LR)
    actions = torch.eye(num_actions)
    for _ in range(2):
        states, expert = torch.randn(SIZE, 2), actions[torch.randint(num_actions, (SIZE,))]

        def rewards(states=states) -> Tensor:
            pairs = [torch.cat([s, a]) for s in states for a in actions]
            return logsigmoid(-critic(torch.stack(pairs))).view(SIZE, num_actions)

        def on_expert(states=states, expert=expert) -> Tensor:
            return logsigmoid(critic(torch.cat([states, expert], dim=1))).mean()

        def expected(states=states) -> Tensor:
            return on_expert() + (policy(states).softmax(1) * rewards()).sum(1).mean()

        def sampled(states=states) -> Tensor:
            log_probs = policy(states).log_softmax(1)
            # One in value, with the derivative of the probability of what was done.
            score = (log_probs - log_probs.detach()).exp()
            shares = log_probs.detach().exp()
            return on_expert() + (shares * score * rewards()).sum(1).mean()

        with truth.expected(expected):
            optimizer.step(sampled())
    assert optimizer.last_step.num_hvp > 0
    assert truth.num_checked == 2


def test_imitation_with_rewards_under_no_grad_says_that_nothing_interacts():
    policy, critic = network(2, 3), network(5, 1)
    optimizer = ACGD(policy.parameters(), critic.parameters(), lr=LR)
    states, actions = torch.randn(SIZE, 2), torch.eye(3)[torch.randint(3, (SIZE,))]
    with torch.no_grad():
        reward = -logsigmoid(-critic(torch.cat([states, actions], dim=1)))
    log_probs = (policy(states).log_softmax(1) * actions).sum(1, keepdim=True)
    on_expert = logsigmoid(critic(torch.cat([states, actions.roll(1, 0)], dim=1))).mean()
    with pytest.warns(StepWarning, match="The players do not interact"):
        optimizer.step(on_expert - (log_probs * reward).mean())


class FreeTraining(nn.Module):
    """A perturbation of each input of a batch, kept from one batch to the next and bounded."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(SIZE, 2))
        self.bound = bound

    @torch.no_grad()
    def project(self) -> None:
        self.delta.clamp_(-self.bound, self.bound)


def test_free_adversarial_training_replays_each_batch():
    """The perturbation is the max player: a replay moves it and the weights from one evaluation."""
    classifier, attack = network(2, 2), FreeTraining(bound=0.02)
    optimizer = ACGD(classifier.parameters(), attack.parameters(), lr=LR, solver=EXACT)
    truth = DifferenceSteps([classifier], [attack], LR)
    clipped = 0
    for _ in range(2):
        inputs, labels = torch.randn(SIZE, 2), torch.randint(2, (SIZE,))
        for _ in range(4):

            def loss(inputs=inputs, labels=labels):
                return cross_entropy(classifier(inputs + attack.delta), labels)

            with truth.expected(loss):
                optimizer.step(loss())
            clipped += int((attack.delta.abs() > attack.bound).sum())
            attack.project()
            assert float(attack.delta.detach().abs().max()) <= attack.bound
    assert clipped > 0
    assert truth.num_checked == 8
