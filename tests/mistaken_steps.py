"""Mistakes in what a step is given; see ``mistakes``."""

import torch
from mistakes import Play, general, in_inference_mode, row

from compopt import ConjugateGradient, Game, MicroBatches, PolymatrixCGD
from compopt.optim.rivals import OGDA, ExtraGradient


def without_grad(play: Play) -> None:
    with torch.no_grad():
        loss = play.loss()
    play.cgd().step(loss)


def step_in_inference_mode(play: Play) -> None:
    loss = play.loss()
    in_inference_mode(lambda: play.cgd().step(loss))


def penalty_with_a_prepared_step(play: Play, early: bool) -> None:
    optimizer = play.cgd()
    term = sum(param.square().sum() for param in play.critic.parameters())
    optimizer.backward(play.loss(), max_penalty=term if early else None)
    optimizer.step(max_penalty=None if early else term)


def penalties_twice(play: Play) -> None:
    term = play.generator.weight.sum()
    play.cgd().step(Game(play.loss(), min_penalty=term), min_penalty=term)


def some_interaction(play: Play, everywhere: bool) -> None:
    optimizer = play.cgd()
    for group in optimizer.param_groups[: None if everywhere else 1]:
        group["interaction"] = 0
    optimizer.step(play.loss())


def of_many(play: Play) -> PolymatrixCGD:
    return PolymatrixCGD(play.players, lr=0.1)


NO_GRAPH = r"without a graph.*do not call `backward\(\)`, `detach\(\)` or `item\(\)` on it"
FORMS = (
    row(
        "detached",
        lambda play: play.cgd().step(play.loss().detach()),
        ValueError,
        NO_GRAPH,
        lambda play: play.cgd().step(play.loss()),
    ),
    row(
        "no-grad",
        without_grad,
        ValueError,
        "compute it with gradients enabled",
        lambda play: play.cgd().step(play.loss()),
    ),
    row(
        "inference-mode",
        lambda play: in_inference_mode(lambda: play.cgd().step(play.loss)),
        ValueError,
        r"outside `torch\.inference_mode\(\)`.*Leave the mode for the loss and the step",
        lambda play: play.cgd().step(play.loss),
    ),
    row(
        "only-the-step-in-inference-mode",
        step_in_inference_mode,
        ValueError,
        "new state could not be changed later",
        lambda play: play.cgd().step(play.loss()),
    ),
    row(
        "number",
        lambda play: play.cgd().step(play.loss().item()),
        TypeError,
        r"got float\. Pass the tensor itself, with its graph",
        lambda play: play.cgd().step(play.loss()),
    ),
    row(
        "closure-without-return",
        lambda play: play.cgd().step(lambda: None),
        TypeError,
        r"got NoneType\. If a closure returned it, end that with `return loss`",
        lambda play: play.cgd().step(lambda: play.loss()),
    ),
    row(
        "closure-of-a-closure",
        lambda play: play.cgd().step(lambda: play.loss),
        TypeError,
        r"got method\. Call it: `loss\(\)`",
        lambda play: play.cgd().step(lambda: play.loss()),
    ),
    row(
        "vector",
        lambda play: play.cgd().step(play.critic(play.fake())),
        ValueError,
        r"shape \(4, 1\).*Reduce it, e\.g\. with `\.mean\(\)`",
        lambda play: play.cgd().step(play.critic(play.fake()).mean()),
    ),
    row(
        "two-arguments",
        lambda play: general(play).step(*play.pair()),
        TypeError,
        r"`CGD\.step` takes 1 positional argument, got 2\..*`\(min_loss, max_loss\)`",
        lambda play: general(play).step(play.pair()),
    ),
    row(
        "penalty-by-position",
        lambda play: play.cgd().backward(play.loss(), play.critic[0].weight.square().sum()),
        TypeError,
        r"`CGD\.backward` takes 1 positional argument.*penalties by name: `min_penalty=`",
        lambda play: play.cgd().step(play.loss(), max_penalty=play.critic[0].weight.sum()),
    ),
    row(
        "misspelt-penalty",
        lambda play: play.cgd().step(play.loss(), max_penaly=play.critic[0].weight.sum()),
        TypeError,
        r"`CGD\.step` takes no `max_penaly`\. Did you mean `max_penalty`\?",
        lambda play: play.cgd().step(play.loss(), max_penalty=play.critic[0].weight.sum()),
    ),
    row(
        "two-arguments-of-a-rival",
        lambda play: OGDA(*play.players).step(*play.pair()),
        TypeError,
        r"`OGDA\.step` takes 1 positional argument, got 2\..*`\(min_loss, max_loss\)`",
        lambda play: OGDA(*play.players).step(play.pair()),
    ),
    row(
        "losses-of-many-players",
        lambda play: of_many(play).step(*play.pair()),
        TypeError,
        r"`PolymatrixCGD\.step` takes 1.*as one list, `\[first_loss, second_loss, \.\.\.\]`",
        lambda play: of_many(play).step([*play.pair()]),
    ),
    row(
        "pair-for-conjugate-gradients",
        lambda play: play.cgd(solver=ConjugateGradient()).step(play.pair()),
        TypeError,
        r"one zero-sum loss, got a tuple of 2.*use `solver=GMRES\(\)`, the default",
        lambda play: general(play).step(play.pair()),
    ),
    row(
        "list-of-losses",
        lambda play: general(play).step([*play.pair()]),
        TypeError,
        r"a list of 2\..*as a tuple, `\(min_loss, max_loss\)`",
        lambda play: general(play).step(tuple(play.pair())),
    ),
    row(
        "generator-of-micro-batches",
        lambda play: play.cgd().step(play.loss() for _ in range(2)),
        TypeError,
        r"got a generator\..*`compopt\.MicroBatches\(\[\.\.\.\]\)`",
        lambda play: play.cgd().step(MicroBatches([play.loss() for _ in range(2)])),
    ),
    row(
        "loss-for-a-closure",
        lambda play: ExtraGradient(*play.players).step(play.loss()),
        TypeError,
        r"needs a closure.*`step\(lambda: loss_fn\(batch\)\)`",
        lambda play: ExtraGradient(*play.players).step(lambda: play.loss()),
    ),
    row(
        "penalty-beside-a-closure",
        lambda play: ExtraGradient(*play.players).step(play.loss, min_penalty=play.loss()),
        ValueError,
        r"return `Game\(loss, min_penalty, max_penalty\)` from the closure",
        lambda play: ExtraGradient(*play.players).step(
            lambda: Game(play.loss(), play.generator.weight.sum(), None)
        ),
    ),
    row(
        "penalty-twice",
        penalties_twice,
        ValueError,
        "is given in the `Game` and as an argument",
        lambda play: play.cgd().step(Game(play.loss(), min_penalty=play.generator.weight.sum())),
    ),
    row(
        "penalty-with-a-prepared-step",
        lambda play: penalty_with_a_prepared_step(play, early=False),
        ValueError,
        "pass them to `backward` in this form",
        lambda play: penalty_with_a_prepared_step(play, early=True),
    ),
    row(
        "curvature-of-a-pair",
        lambda play: general(play).step(play.pair(), curvature_loss=play.loss()),
        ValueError,
        "`curvature_loss` is for zero-sum games",
        lambda play: general(play).step(play.loss(), curvature_loss=play.loss()),
    ),
    row(
        "interaction-of-some",
        lambda play: some_interaction(play, everywhere=False),
        ValueError,
        "`interaction` must be 0 in all groups of both players or in none",
        lambda play: some_interaction(play, everywhere=True),
    ),
)
