"""Faults of what is checked at each call that tests must notice, for `plant_faults.py`."""

from faults import OPTIM, Fault

CALL_FAULTS = (
    Fault(
        "values that are set in a group later are not checked",
        "compopt/optim/stepping.py",
        "self._call_checks.check_groups(self.param_groups, self._check_group)",
        "pass",
        (OPTIM + "test_values_set_later.py",),
    ),
    Fault(
        "samples of an older step are not looked for",
        "compopt/optim/stepping.py",
        "if looks_for_old_parts and self._call_checks",
        "if False and self._call_checks",
        (OPTIM + "test_old_losses.py",),
    ),
    Fault(
        "scalers of later classes are not looked for",
        "compopt/optim/scaling.py",
        "self._classes = classes = _with_subclasses(GradScaler)",
        "self._classes = classes = [GradScaler]",
        (OPTIM + "test_scalers.py",),
    ),
    Fault(
        "a walk over a graph ends at the first operation",
        "compopt/_graph.py",
        "        yield node\n",
        "        yield node\n        break\n",
        (OPTIM + "test_bad_losses.py", "tests/test_game.py"),
    ),
    Fault(
        "n players' losses are rehearsed as if they were one",
        "compopt/diagnosis/many.py",
        "loss_fn()[i], both",
        "loss_fn()[0], both",
        ("tests/diagnosis/test_preflight_players.py",),
    ),
)
