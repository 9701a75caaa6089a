"""Plants faults in a copy of the package, one at a time, and says which ones the tests miss.

    python tests/plant_faults.py                 all of them
    python tests/plant_faults.py clipping hooks  those whose names hold one of these words

A suite that is made smaller must still catch them all. Each fault is tried on the tests that are
there for its kind, which stop at the first failure.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("compopt", "kernels", "tests", "benchmarks", "examples", "docs", "pyproject.toml")
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
        "compopt/game.py",
        '    flat["max"].neg_()\n',
        "",
        ("tests/test_game.py", OPTIM + "test_exact.py"),
    ),
    Fault(
        "products are not scaled back",
        "compopt/game.py",
        "return product if self._scale == 1.0 else product.div_(self._scale)",
        "return product",
        ("tests/test_game.py", OPTIM + "test_mixed_precision.py"),
    ),
    Fault(
        "a penalty counts twice",
        "compopt/game.py",
        "penalty, params[player], layouts[player], flat[player])",
        "2 * penalty, params[player], layouts[player], flat[player])",
        ("tests/test_game.py", OPTIM + "test_every_optimizer.py"),
    ),
    Fault(
        "the operator reacts without the opponent's step sizes",
        "compopt/operators/competitive.py",
        "return self._adjoint(vector, out, self.opponent_step_sizes)",
        "return self._adjoint(vector, out, None)",
        ("tests/operators", OPTIM + "test_exact.py"),
    ),
    Fault(
        "sums are not reduced over processes",
        "compopt/operators/competitive.py",
        "return self.mixed.total(partials)",
        "return partials",
        ("tests/distributed/test_sharded.py",),
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
        "return torch.maximum(tolerance, atol / self.scale) if atol else tolerance",
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
        "compopt/optim/groups.py",
        'if group["player"] == player and params:\n            stop',
        'if group["player"] == player and params and group is param_groups[0]:\n            stop',
        (OPTIM + "test_clipping.py",),
    ),
    Fault(
        "the interaction's strength is not scaled back",
        "compopt/optim/interaction.py",
        'factor = learning_rate(group) / group["interaction"]',
        "factor = 1.0",
        (OPTIM + "test_interaction.py",),
    ),
    Fault(
        "no interaction is taken for the default",
        "compopt/optim/interaction.py",
        "return counts == {True}",
        "return True",
        (OPTIM + "test_interaction.py",),
    ),
    Fault(
        "the bias correction is one step late",
        "compopt/optim/acgd.py",
        "(num_steps + 1)",
        "max(num_steps, 1)",
        (OPTIM + "test_exact.py", OPTIM + "test_lives.py"),
    ),
    Fault(
        "the average of squares is not kept",
        "compopt/optim/acgd.py",
        "        commit.copy(average, new)\n",
        "",
        (OPTIM + "test_exact.py", OPTIM + "test_lives.py"),
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
        "if self._target._version == self._version:",
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
        "compopt/optim/step_counts.py",
        "                count = count.clone()\n",
        "                pass\n",
        (OPTIM + "test_step_counts.py",),
    ),
    Fault(
        "a negative learning rate of a schedule is followed",
        "compopt/optim/groups.py",
        "return lr.clamp(min=0) if isinstance(lr, Tensor) else max(lr, 0.0)",
        "return lr",
        (OPTIM + "test_schedulers.py",),
    ),
    Fault(
        "hooks on parameters are not seen",
        "compopt/optim/base.py",
        "        check_hooks(params)\n",
        "",
        (OPTIM + "test_step_hooks.py",),
    ),
    Fault(
        "the fallback goes uphill",
        "compopt/optim/step_sizes.py",
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
        "compopt/optim/players.py",
        "return self._workspace.vector(self._placement.layout(self._params(player)), player, name)",
        "return self._workspace.vector(self._placement.layout(self._params(player)), name)",
        (OPTIM + "test_exact.py",),
    ),
    Fault(
        "a player that moves alone goes downhill on the other's loss",
        "compopt/optim/alone.py",
        "        flat.neg_()\n",
        "        pass\n",
        (OPTIM + "test_alone.py",),
    ),
    Fault(
        "a prepared step outlives a move of one player",
        "compopt/optim/base.py",
        "        self._tell_of_lost_step()\n        self._pending = None\n",
        "",
        (OPTIM + "test_alone.py",),
    ),
    Fault(
        "a state vector is staged twice",
        "compopt/optim/state.py",
        "        if staged is not None:\n            return staged\n",
        "",
        (OPTIM + "test_alone.py",),
    ),
    Fault(
        "ranks may move different players",
        "compopt/optim/ranks.py",
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


def occurrences(fault: Fault) -> int:
    """Return how often the text that a fault replaces is in its file."""
    return (ROOT / fault.file).read_text().count(fault.old)


def is_caught(fault: Fault, copy: Path) -> bool:
    """Return whether the tests notice a fault.

    Args:
        fault: to be planted, and taken out again.
        copy: of the repository.
    """
    file = copy / fault.file
    before = file.read_text()
    file.write_text(before.replace(fault.old, fault.new))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow"]
        result = subprocess.run(
            [*command, "-p", "no:cacheprovider", *fault.tests],
            cwd=copy,
            env={**_environment(), "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(before)
    # 1 is that of failed tests; 2 and more are mistakes of the command.
    if result.returncode > 1:
        raise RuntimeError(result.stdout[-3000:] + result.stderr[-1000:])
    return result.returncode == 1


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def main(words: list[str]) -> int:
    """Plant the faults; return how many were missed."""
    chosen = [f for f in FAULTS if not words or any(word in f.name for word in words)]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, symlinks=True)
            else:
                shutil.copy(source, copy / name)
        for fault in chosen:
            caught = is_caught(fault, copy)
            print(f"{'caught' if caught else 'MISSED'}: {fault.name}", flush=True)
            missed += [] if caught else [fault]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} caught")
    return len(missed)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
