"""Faults that tests must notice, for `plant_faults.py`."""

from dataclasses import dataclass

OPTIM = "tests/optim/"


@dataclass(frozen=True)
class Fault:
    """A change that a test must notice.

    Attributes:
        name: what is wrong.
        file: where, from the root.
        old: text that occurs there once.
        new: what takes its place.
        tests: paths that are run.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "the max player moves the other way",
        "compopt/derivatives/gradients.py",
        "grad = split[player] if sign == 1 else split[player].neg_()",
        "grad = split[player]",
        ("tests/test_game.py", OPTIM + "test_exact.py"),
    ),
    Fault(
        "products are not scaled back",
        "compopt/derivatives/products.py",
        "factor=factor * self.signs[objective] / self._scale,",
        "factor=factor * self.signs[objective],",
        ("tests/test_game.py", OPTIM + "test_mixed_precision.py"),
    ),
    Fault(
        "a penalty counts twice",
        "compopt/derivatives/gradients.py",
        'loss_gradients(f"{player}_penalty", term, params',
        'loss_gradients(f"{player}_penalty", 2 * term, params',
        ("tests/test_game.py", OPTIM + "test_every_optimizer.py"),
    ),
    Fault(
        "the operator reacts without the opponent's step sizes",
        "compopt/operators.py",
        "return self._response(vector, out, self.opponent_step_sizes)",
        "return self._response(vector, out, None)",
        ("tests/operators", OPTIM + "test_exact.py"),
    ),
    Fault(
        "sums are not reduced over processes",
        "compopt/operators.py",
        "            self.total = placement.total  # type: ignore[method-assign]\n",
        "",
        ("tests/distributed/test_sharded.py",),
    ),
    Fault(
        "the max player raises its penalty",
        "compopt/derivatives/gradients.py",
        "tensors += grads if sign == 1 else [None if grad is None else -grad for grad in grads]",
        "tensors += grads",
        ("tests/test_game.py", OPTIM + "test_every_optimizer.py"),
    ),
    Fault(
        "a player's own curvature enters the joint system",
        "compopt/derivatives/products.py",
        "{other: vectors[other] for other in vectors if other != player}",
        "{other: vectors[other] for other in vectors}",
        ("tests/test_game.py", OPTIM + "test_polymatrix.py"),
    ),
    Fault(
        "products leave the coordinates of a mirror map",
        "compopt/derivatives/products.py",
        "local = charts[rows].pull(out)",
        "local = out",
        (OPTIM + "test_mirrors.py",),
    ),
    Fault(
        "the reply counts GMRES's cycles that are not taken",
        "compopt/solvers/gmres.py",
        "        added = torch.where(is_taken, added, 0)\n",
        "",
        ("tests/solvers",),
    ),
    Fault(
        "conjugate gradients stop one iteration early",
        "compopt/solvers/cg.py",
        "for num_iter in range(self.max_iter):",
        "for num_iter in range(self.max_iter - 1):",
        ("tests/solvers",),
    ),
    Fault(
        "a warm start begins at another point than it says",
        "compopt/solvers/cg.py",
        "self.y.add_(operator.reaction(self.x, self.t))",
        "operator.reaction(self.x, self.t)",
        ("tests/solvers", OPTIM + "test_exact.py"),
    ),
    Fault(
        "the tolerance forgets atol",
        "compopt/solvers/cg.py",
        "return larger(tolerance, atol / self.scale)",
        "return tolerance",
        ("tests/solvers",),
    ),
    Fault(
        "GMRES keeps cycles that lead nowhere",
        "compopt/solvers/gmres.py",
        "x = torch.where(is_lower, candidate, x)",
        "x = candidate",
        ("tests/solvers",),
    ),
    Fault(
        "clipping leaves out all groups but the first",
        "compopt/optim/stepping.py",
        'if group["max_grad_norm"] is not None:\n                norm',
        'if group["max_grad_norm"] is not None and where.start == 0:\n                norm',
        (OPTIM + "test_clipping.py",),
    ),
    Fault(
        "the interaction's strength is not scaled back",
        "compopt/optim/settings.py",
        'factor = learning_rate(group) / group["interaction"]',
        "factor = 1.0",
        (OPTIM + "test_interaction.py",),
    ),
    Fault(
        "no interaction is taken for the default",
        "compopt/optim/settings.py",
        "return cls(does, is_rescaled",
        "return cls(True, is_rescaled",
        (OPTIM + "test_interaction.py",),
    ),
    Fault(
        "the bias correction is one step late",
        "compopt/optim/adaptive.py",
        "(num_steps + 1)",
        "max(num_steps, 1)",
        (OPTIM + "test_exact.py", OPTIM + "test_lives.py"),
    ),
    Fault(
        "the average of squares is not kept",
        "compopt/optim/adaptive.py",
        "commit.add(partial(own.addcmul_, grad, grad, value=1 - beta), own)",
        "pass",
        (OPTIM + "test_exact.py", OPTIM + "test_lives.py"),
    ),
    Fault(
        "captured steps keep no average of squares",
        "compopt/optim/adaptive.py",
        "        commit.copy(average, new)\n",
        "",
        (OPTIM + "test_step_counts.py",),
    ),
    Fault(
        "a write is not completed after an interrupt",
        "compopt/optim/commit.py",
        "        except BaseException:\n            self._run()\n            raise",
        "        except BaseException:\n            raise",
        (OPTIM + "test_interrupted_steps.py",),
    ),
    Fault(
        "an interrupted write is made twice",
        "compopt/optim/commit.py",
        "if target._version == self._version:",
        "if True:",
        (OPTIM + "test_interrupted_steps.py",),
    ),
    Fault(
        "captured steps forget weight decay",
        "compopt/optim/commit.py",
        "moved = param.clone() if decay is None else param * decay",
        "moved = param.clone()",
        (OPTIM + "test_step_counts.py",),
    ),
    Fault(
        "counts that are shared advance for those who stay behind",
        "compopt/optim/vectors.py",
        "advanced[id(count)] = count.clone()",
        "advanced[id(count)] = count",
        (OPTIM + "test_step_counts.py",),
    ),
    Fault(
        "a negative learning rate of a schedule is followed",
        "compopt/optim/settings.py",
        "return lr.clamp(min=0) if isinstance(lr, Tensor) else max(lr, 0.0)",
        "return lr",
        (OPTIM + "test_schedulers.py",),
    ),
    Fault(
        "hooks on parameters are not seen",
        "compopt/optim/two_player.py",
        "        self._refuse_hooks()\n",
        "",
        (OPTIM + "test_step_hooks.py",),
    ),
    Fault(
        "hooks of a prepared step are not seen",
        "compopt/optim/two_phase.py",
        "        self._refuse_hooks()\n",
        "",
        (OPTIM + "test_step_hooks.py",),
    ),
    Fault(
        "a scale that comes after the first step is not seen",
        "compopt/optim/call_checks.py",
        "        check_unscaled(",
        "        kind in self._seen or check_unscaled(",
        (OPTIM + "test_scalers.py",),
    ),
    Fault(
        "rivals do not tell of players apart",
        "compopt/optim/rivals/base.py",
        "                optimizer._reporter.report_apart(result)\n",
        "",
        (OPTIM + "test_doubtful_steps.py",),
    ),
    Fault(
        "the fallback goes uphill",
        "compopt/optim/update.py",
        "return (self.values * grad).neg_()",
        "return self.values * grad",
        (OPTIM + "test_failures.py",),
    ),
    Fault(
        "a checkpoint's digest is not compared",
        "compopt/checkpoint.py",
        "if hashlib.sha256(data).digest() != digest:",
        "if False:",
        ("tests/test_checkpoint.py",),
    ),
    Fault(
        "a symbolic link is followed when a draft is written",
        "compopt/_files.py",
        '"xb"',
        '"wb"',
        ("tests/test_files.py",),
    ),
    Fault(
        "DRAGAN's noise has the other width",
        "compopt/penalties/dragan.py",
        "noise = math.sqrt(width) * normal(wide.shape, wide, generator)",
        "noise = width * normal(wide.shape, wide, generator)",
        ("tests/penalties",),
    ),
    Fault(
        "a box's metric forgets its width",
        "compopt/optim/mirrors/separable.py",
        "self.root = (self.below * self.above / (high - low)).sqrt()",
        "self.root = (self.below * self.above).sqrt()",
        (OPTIM + "test_mirrors.py", OPTIM + "test_mirror_maps.py"),
    ),
    Fault(
        "extragradient stays where it looked ahead",
        "compopt/optim/rivals/base.py",
        "        finally:\n            restored.run()",
        "        finally:\n            pass",
        (OPTIM + "test_rivals.py",),
    ),
    Fault(
        "work vectors of two players are one",
        "compopt/optim/adaptive.py",
        "self._workspace.vector(vectors.layout, player, name) for name in names",
        "self._workspace.vector(vectors.layout, name) for name in names",
        (OPTIM + "test_exact.py",),
    ),
    Fault(
        "a player that moves alone goes downhill on the other's loss",
        "compopt/game.py",
        "{player: own.signs[player]}",
        "{player: 1}",
        (OPTIM + "test_alone.py",),
    ),
    Fault(
        "a prepared step outlives a move of one player",
        "compopt/optim/competitive.py",
        "been.\n        self._drop_prepared()\n",
        "been.\n",
        (OPTIM + "test_alone.py",),
    ),
    Fault(
        "a state vector is staged twice",
        "compopt/optim/vectors.py",
        "        if staged is not None:\n            return staged\n",
        "",
        (OPTIM + "test_alone.py",),
    ),
    Fault(
        "ranks may move different players",
        "compopt/optim/stepping.py",
        '            settings["`player`"] = plain(player)\n',
        "",
        ("tests/distributed/test_out_of_step.py",),
    ),
    Fault(
        "wrong derivatives are taken for right ones",
        "compopt/diagnosis/_culprit.py",
        "return comparison.verdict is Verdict.WRONG",
        "return False",
        ("tests/diagnosis",),
    ),
)
