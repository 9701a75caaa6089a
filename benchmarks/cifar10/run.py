"""A run: train, log, evaluate, checkpoint, and resume exactly after any interruption."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.cifar10 import checkpoint, folder
from benchmarks.cifar10.averaging import sample
from benchmarks.cifar10.clock import Stopwatch, peak_memory_mib
from benchmarks.cifar10.config import ENDPOINT, RunConfig
from benchmarks.cifar10.data import Images
from benchmarks.cifar10.errors import BenchmarkError, Diverged, Interrupted
from benchmarks.cifar10.folder import RunFolder
from benchmarks.cifar10.grids import save_grid
from benchmarks.cifar10.judge import Judge
from benchmarks.cifar10.parallel import Ranks
from benchmarks.cifar10.training import Training
from benchmarks.harness import conditions

SHOWN = 64
STATUS_EVERY = 2.0
"""Seconds between writes of the status."""


class Run:
    """One cell in its folder.

    Args:
        config: the hyperparameters.
        path: the folder; the run resumes from its contents.
        images: the real images.
        ranks: the processes that share the cell.

    Raises:
        BenchmarkError: if the folder has other hyperparameters or images, or its checkpoint is
            damaged.
    """

    def __init__(
        self,
        config: RunConfig,
        path: Path,
        images: Images,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.ranks = ranks or Ranks()
        resized = images.resized(config.network.image_size)
        self.judge = Judge(resized, config.device)
        evaluation = config.evaluation
        self.judge.check(evaluation.images, evaluation.metrics + evaluation.endpoint_metrics)
        self.judge.check(evaluation.final_images, evaluation.final_metrics)
        self.folder = RunFolder(path)
        self.training = Training(config, resized.train, self.ranks)
        written = {"run": config.as_dict(), "data": images.describe()}
        if self.ranks.is_first:
            folder.write_once(path / "config.json", written, "hyperparameters")
        state = checkpoint.load(path)
        self._is_over = state is not None and state["is_over"]
        if state is not None:
            self.training.load_state_dict(state["training"])
        self._watch = Stopwatch(config.device)
        self._status_written = 0.0
        self._is_point = False

    def complete(self, stop: Callable[[], bool]) -> str:
        """Train to the end of the budget; return "finished" or "diverged".

        Args:
            stop: called after each step; True to checkpoint and stop.

        Raises:
            Interrupted: if asked to stop, after a checkpoint.
            BenchmarkError: if something cannot be written.
        """
        training = self.training
        if self.ranks.is_first:
            self._begin()
        try:
            if training.step == 0 and 0 in self.config.evaluation.at:
                self._evaluate(is_last=False)
            while not self._is_over:
                self._watch.start()
                asked, is_last = self._advance_to_pause(stop)
                training.totals.seconds += self._watch.stop()
                training.check()
                self._pause(is_last, asked)
                if asked and not is_last:
                    if self.ranks.is_first:
                        self._status("interrupted")
                    raise Interrupted(f"Stopped at step {training.step}, after a checkpoint.")
        except Diverged as error:
            if self.ranks.is_first:
                self._status("diverged", reason=str(error))
            return "diverged"
        if self.ranks.is_first:
            self._status("finished")
        return "finished"

    def _advance_to_pause(self, stop: Callable[[], bool]) -> tuple[bool, bool]:
        """Step until another action is due; return whether to stop, and whether training ended."""
        config, training = self.config, self.training
        while True:
            reached = training.points
            training.advance()
            # All processes must stop at the same step.
            asked = self.ranks.agreed(stop())
            is_last = training.share >= 1
            self._is_point = training.points > reached or training.step in config.evaluation.at
            if is_last or asked or self._is_point or self._is_due(training.step):
                return asked, is_last

    def _is_due(self, step: int) -> bool:
        config = self.config
        return step % config.log_every == 0 or step % config.checkpoint_every == 0

    def _pause(self, is_last: bool, asked: bool) -> None:
        """Log, evaluate, then checkpoint, so that the logs on disk reach the checkpoint's step."""
        step, config = self.training.step, self.config
        is_judged = is_last or self._is_point
        if self.ranks.is_first:
            self._log()
            if is_judged:
                self._evaluate(is_last)
            if is_judged or asked or step % config.checkpoint_every == 0:
                self._save(is_last)
            if time.monotonic() - self._status_written > STATUS_EVERY:
                self._status("running")
        elif is_judged:
            # Spectra are part of the training state, which all processes must share.
            self.training.spectra()
        self._is_over = is_last

    def _begin(self) -> None:
        step = self.training.step
        self.folder.remove_drafts()
        # At step 0 drop all lines, because step 0 is evaluated again.
        self.folder.rewind(step if step else -1)
        file = self.folder.path / "environment.json"
        parts = [part for part in folder.read_json(file) or [] if part["from_step"] < step]
        folder.write_json(file, [*parts, {"from_step": step, **conditions()}])
        if not self._is_over:
            self._status("running")

    def _status(self, state: str, **more: Any) -> None:
        self.folder.set_status(
            state,
            self.training.step,
            self.config.steps,
            seconds=self.training.totals.seconds,
            share=self.training.share,
            **more,
        )
        self._status_written = time.monotonic()

    def _log(self) -> None:
        row = {
            "step": self.training.step,
            "value": self.training.value.item(),
            "cost": self.training.cost,
            **asdict(self.training.totals),
            "memory_mib": round(peak_memory_mib(self.config.device), 1),
        }
        self.folder.append(folder.LOG, row)

    def _save(self, is_last: bool) -> None:
        state = {
            "step": self.training.step,
            "is_over": is_last,
            "training": self.training.state_dict(),
        }
        checkpoint.save(self.folder.path, state)

    def _evaluate(self, is_last: bool) -> None:
        config, training = self.config.evaluation, self.training
        self.folder.append(folder.SPECTRA, {"step": training.step, **training.spectra()})
        is_endpoint = config.points - ENDPOINT < training.points
        further = {"ema": config.endpoint_metrics} if is_endpoint else {}
        for name, module in (("raw", training.generator), ("ema", training.ema.module)):
            judged = [(config.images, [*config.metrics, *further.get(name, [])], False)]
            judged += [(config.final_images, config.final_metrics, True)] if is_last else []
            count = max([SHOWN, *(count for count, names, _ in judged if names)])
            images = sample(module, count, seed=self.config.seed, norm_images=config.norm_images)
            save_grid(
                images[:SHOWN],
                self.folder.path / "samples" / f"step_{training.step:07d}_{name}.png",
            )
            for number, metrics, is_final in judged:
                row = {
                    "step": training.step,
                    "generator": name,
                    "final": is_final,
                    "cost": training.cost,
                    **asdict(training.totals),
                    **self.judge.scores(images[:number], metrics),
                }
                self.folder.append(folder.EVALUATIONS, row)


def fail(path: Path, error: BaseException) -> None:
    """Write to the status that a run failed, and the reason."""
    run_folder = RunFolder(path)
    before = run_folder.status()
    reason = str(error) if isinstance(error, BenchmarkError) else f"{type(error).__name__}: {error}"
    run_folder.set_status("failed", before.get("step", 0), before.get("steps", 0), reason=reason)
