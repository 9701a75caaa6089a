"""The queue of cells: an Optuna study for each method, with a trial for each cell.

The storage is a SQLite file beside the cells, or a database server that many machines share. Optuna
detects by the missing heartbeat that a trial's process is gone, and queues the trial again. The
cell then resumes from the last checkpoint in its folder.
"""

import contextlib
import warnings
from collections.abc import Callable

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from benchmarks.cifar10.lock import held
from benchmarks.cifar10.sweep import Sweep

HEARTBEAT, PATIENCE = 20, 120
"""Seconds between signs of life of a trial, and without one until another process takes it."""

Run = Callable[[str], float | None]
"""Runs a cell by name and returns its endpoint; None if it was interrupted or failed."""


def _storage(sweep: Sweep, url: str | None) -> RDBStorage:
    return RDBStorage(
        url or f"sqlite:///{(sweep.path / 'optuna.db').resolve()}",
        heartbeat_interval=HEARTBEAT,
        grace_period=PATIENCE,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )


class Queue:
    """The cells of a sweep that remain to run.

    Args:
        sweep: the sweep.
        url: SQLAlchemy URL of Optuna's storage; a file in the sweep's folder if None.
    """

    def __init__(self, sweep: Sweep, url: str | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._sweep = sweep
        self._storage = storage = _storage(sweep, url)
        self._signed: set[int] = set()
        names = {cell.method for cell in sweep.cells.values()}
        self.studies = {
            name: optuna.create_study(
                study_name=f"{sweep.path.name}/{name}", storage=storage, load_if_exists=True
            )
            for name in sorted(names)
        }

    def fill(self, names: list[str]) -> None:
        """Queue the cells that are not finished, queued, or running."""
        states = (TrialState.WAITING, TrialState.RUNNING)
        present = {name for study in self.studies.values() for name in _cells(study, states)}
        for name in names:
            if name not in present and not self._sweep.is_done(name):
                self._enqueue(name)

    def _enqueue(self, name: str) -> None:
        cell = self._sweep.config(name)
        self.studies[cell.method].enqueue_trial(dict(cell.choices), user_attrs={"cell": name})

    def run_next(self, names: list[str], run: Run) -> bool:
        """Run the first waiting cell of ``names``; return False if there is none."""
        with contextlib.ExitStack() as look:
            # With SQLite, two processes could take the same trial.
            look.enter_context(held(self._sweep.path, wait=True))
            return self._run_next(names, run, look.close)

    def _run_next(self, names: list[str], run: Run, has_taken: Callable[[], object]) -> bool:
        waiting = set()
        for study in self.studies.values():
            self._sign(study)
            optuna.storages.fail_stale_trials(study)
            waiting |= _cells(study, (TrialState.WAITING,))
        first = next((name for name in names if name in waiting), None)
        if first is None:
            return False

        def objective(trial: optuna.Trial) -> float:
            has_taken()
            return self._objective(trial, names, run)

        self.studies[self._sweep.config(first).method].optimize(objective, n_trials=1)
        return True

    def _sign(self, study: optuna.Study) -> None:
        """Record one heartbeat for each running trial when this process first sees it.

        Optuna never requeues a trial whose process was killed before the first heartbeat.
        """
        study_id = self._storage.get_study_id_from_name(study.study_name)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            number = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            if number not in self._signed:
                self._storage.record_heartbeat(number)
                self._signed.add(number)

    def _objective(self, trial: optuna.Trial, names: list[str], run: Run) -> float:
        name = trial.user_attrs.get("cell")
        if name is None:
            # Another process took the last trial in the meantime.
            raise optuna.TrialPruned
        if name not in names:
            # Move it to the end: Optuna returns a study's trials in the order of queueing.
            self._enqueue(name)
            raise optuna.TrialPruned
        cell = self._sweep.config(name)
        for key in cell.choices:
            # The values are fixed by the queue; `suggest` stores them in Optuna's record.
            self._sweep.spaces[cell.method][key].suggest(trial, key)
        endpoint = run(name)
        if endpoint is None:
            raise optuna.TrialPruned
        return endpoint

    def is_running(self, names: list[str]) -> bool:
        """Return True if other processes run some of the cells."""
        running = (_cells(study, (TrialState.RUNNING,)) for study in self.studies.values())
        return any(not cells.isdisjoint(names) for cells in running)


def _cells(study: optuna.Study, states: tuple[TrialState, ...]) -> set[str]:
    """Return the cells of a study's trials in the given states."""
    trials = study.get_trials(deepcopy=False, states=states)
    return {trial.user_attrs["cell"] for trial in trials if "cell" in trial.user_attrs}
