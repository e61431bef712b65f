"""The loop of a run: steps, metrics, evaluations, checkpoints, a stop; nothing is lost between."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from zoo import checkpoint
from zoo.config.specs import RunConfig
from zoo.data import Batch, Data, prefetch, train_batches
from zoo.train import placement
from zoo.train.diagnose import explain
from zoo.train.logbook import SCORES, Logbook, Window
from zoo.train.state import State, to_parts
from zoo.train.step import Metrics, Scores, Trainer, evaluate
from zoo.train.stop import StopRequest
from zoo.utils.progress import Done, Progress

# Steps that may be under way before the host looks at one. On a CPU a second program that waits in
# a collective can keep the first one's threads from ever finishing, so there it is one at a time.
IN_FLIGHT = {"cpu": 0}
OTHERWISE_IN_FLIGHT = 2


@dataclass
class Run:
    """A run that is ready to go on: everything checked, made and put in its place.

    Attributes:
      config: what runs.
      out: its folder.
      data: loaded.
      trainer: model and mesh.
      state: sharded; consumed by the loop.
      record: what rebuilds the model, see `zoo.pretrained.record`; part of every checkpoint.
      window: the steps since the last line of metrics, from a checkpoint.
      step: updates made so far.
      steps_per_epoch: full batches of the training split.
      tokens_per_sample: for the speed in tokens; where batches are grouped by length, the mean over
        an epoch, and so the next.
      flops_per_sample: that the model needs, forward and backward; see `zoo.train.utilisation`.
      peak_flops: that the devices could do a second, None where that is not known.
      seconds: of training and evaluation so far, over all resumes.
    """

    config: RunConfig
    out: Path
    data: Data
    trainer: Trainer
    state: State
    record: dict[str, Any]
    window: list[dict[str, Any]]
    step: int
    steps_per_epoch: int
    tokens_per_sample: float
    flops_per_sample: float
    peak_flops: float | None
    seconds: float = 0.0


class Loop:
    """Trains a prepared run.

    Args:
      run: from `zoo.train.run.prepare`; its state and seconds are brought up to date.
      stop: asked between steps.
      console: for progress.
    """

    def __init__(self, run: Run, stop: StopRequest, console: Console) -> None:
        self.run, self.stop, self.console = run, stop, console
        config, trainer = run.config, run.trainer
        mesh, size = trainer.mesh, config.train.batch_size
        self.put = placement.batch_putter(mesh, size)
        self.rows = placement.process_rows(mesh, size)
        self.window = Window(run.window)
        self.pending: list[Metrics] = []
        self.scores: Scores | None = None
        # By which the best checkpoint is kept.
        self.metric, better = (
            ("accuracy", "max") if run.data.task == "classify" else ("loss", "min")
        )
        self.best = (self.metric, better)
        self._figures: dict[str, float] = {}
        self._since, self._before = time.perf_counter(), run.seconds

    def go(self) -> tuple[State, Scores]:
        """Trains to the end or to a stop, and leaves a checkpoint of that moment."""
        run = self.run
        with contextlib.ExitStack() as stack:
            self.saver = stack.enter_context(
                checkpoint.Saver(
                    run.out / "checkpoints", keep=run.config.log.keep, keep_best=1, best=self.best
                )
            )
            self.logbook = None
            if jax.process_index() == 0:
                self.logbook = stack.enter_context(Logbook(run.out, run.step))
            self.progress = stack.enter_context(Progress(self.console))
            with prefetch(self.batches(run.step), self.put) as source:
                self._steps(source)
            if self.scores is None and run.step == run.trainer.total_steps:
                self._evaluate(log=False)  # resumed after its last step, whose line is there
            self.saver.wait()
        return run.state, self.scores

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's part of every batch from a step to the end of the run."""
        run, spec = self.run, self.run.config.train
        for epoch in range(step // run.steps_per_epoch, spec.epochs):
            start = max(0, step - epoch * run.steps_per_epoch)
            yield from train_batches(
                run.data.train,
                spec.batch_size,
                seed=spec.seed,
                epoch=epoch,
                start=start,
                rows=self.rows,
                group_by_length=spec.group_by_length,
                pairs=run.config.data.pairs,
            )

    def _steps(self, source: Any) -> None:
        run, spec, log = self.run, self.run.config.train, self.run.config.log
        total = run.trainer.total_steps
        in_flight = IN_FLIGHT.get(jax.devices()[0].platform, OTHERWISE_IN_FLIGHT)
        tokens = spec.batch_size * run.tokens_per_sample
        done = self.progress(run.config.name, total, start=run.step)
        for batch in source:
            if self._stop_asked():
                self._settle(0)
                self._save()
                return
            run.state, metrics = run.trainer.step(run.state, batch)
            run.step += 1
            self.pending.append(metrics)
            self._settle(in_flight)
            self._show(done)
            if run.step % log.every == 0 or run.step == total:
                self._settle(0)
                line = self.window.close(spec.batch_size, tokens, source.waited)
                line["model_flops_per_second"] = line["samples_per_second"] * run.flops_per_sample
                if run.peak_flops is not None:
                    used = line["model_flops_per_second"] / run.peak_flops
                    line["model_flops_utilisation"] = used
                line["learning_rate"] = float(run.trainer.learning_rate(run.step - 1))
                self._log("train", line)
                self._show(done, loss=line["loss"])
            evaluating, saving = self._due(log.evaluate), self._due(log.save)
            if evaluating or saving:
                self._settle(0)
                paused = self.window.pause()
                if evaluating:
                    self._evaluate()
                    self._show(done)
                if saving:
                    self._save(evaluated=evaluating)
                self.window.resume(paused)

    def _due(self, every: int) -> bool:
        """Whether something done every so many steps (0: every epoch) is due after this step."""
        run = self.run
        return run.step == run.trainer.total_steps or run.step % (every or run.steps_per_epoch) == 0

    def _stop_asked(self) -> bool:
        if jax.process_count() == 1:
            return bool(self.stop)
        # A signal reaches the processes at different steps; they must leave at the same one.
        if self.run.step % self.run.config.log.every:
            return False
        asked = multihost_utils.process_allgather(np.int32(self.stop.signal or 0))
        if asked.any() and not self.stop:
            self.stop.signal = int(asked.max())
        return bool(self.stop)

    def _settle(self, keep: int) -> None:
        """Takes the metrics of all but the last `keep` steps to the host.

        Raises:
          FloatingPointError: at the first that is not finite.
        """
        while len(self.pending) > keep:
            metrics = placement.fetch(self.pending.pop(0), self.run.trainer.mesh)
            if not metrics.finite:
                raise self._not_finite(float(metrics.loss))
            cuts = self.run.config.model.stages - 1
            scores = {name: getattr(metrics, name) for name in SCORES}
            row = {
                "loss": float(metrics.loss),
                **{name: float(value) for name, value in scores.items() if value is not None},
                "gradient_norm": float(metrics.gradient_norm),
                "bits": metrics.bits[:cuts].tolist(),
            }
            if self.run.trainer.model.boundary.spiking:
                row["spike_rate"] = metrics.spike_rate[:cuts].tolist()
            self.window.add(row)

    def _not_finite(self, loss: float) -> FloatingPointError:
        run = self.run
        self.saver.wait()
        step = int(placement.fetch(run.state.step, run.trainer.mesh))  # the last good one
        reason = explain(run.trainer, run.state, next(self.batches(step)), self.put)
        newest = checkpoint.latest(run.out / "checkpoints")
        return FloatingPointError(
            f"step {step + 1}: loss {loss} or its gradients are not finite: {reason}. The last "
            f"good checkpoint is {newest or 'none yet'}. Look for bad data, lower "
            "train.learning_rate or train.clip, or use model.precision=float32"
        )

    def _evaluate(self, log: bool = True) -> None:
        run = self.run
        begin = partial(self.progress, passing=True)
        self.scores = evaluate(
            run.trainer, run.state, run.data.validation, averaged=True, progress=begin
        )
        if log:
            self._log("evaluation", self.scores.record())

    def _save(self, evaluated: bool = False) -> None:
        run = self.run
        run.seconds = self._before + time.perf_counter() - self._since
        record = {
            **run.record,
            "step": run.step,
            "epoch": run.step // run.steps_per_epoch,
            "window": list(self.window.rows),
            "seconds": run.seconds,
            "metrics": self.scores.record() if evaluated else None,
        }
        metric = getattr(self.scores, self.metric) if evaluated else None
        self.saver.save(to_parts(run.trainer.unshard(run.state)), record, metric=metric)

    def _log(self, kind: str, metrics: dict[str, Any]) -> None:
        if self.logbook:
            epoch = (self.run.step - 1) // self.run.steps_per_epoch
            self.logbook.write(kind, self.run.step, epoch, metrics)

    def _show(self, done: Done, **figures: float) -> None:
        """How far the run is, with the newest figures."""
        self._figures.update(figures)
        if self.scores is not None:
            self._figures[self.metric] = getattr(self.scores, self.metric)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in self._figures.items())
        done(self.run.step, shown)
