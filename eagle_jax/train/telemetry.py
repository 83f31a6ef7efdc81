"""What a run measures while it goes, and whom it tells."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax

from eagle_jax.train import metrics, optimizer, prepared


class Telemetry:
  """Fetches what the logged updates measured; writes it down and shows it.

  Attributes:
    loss: of the last logged update, NaN before the first.
  """

  def __init__(self, ready: prepared.Run, done: int):
    """Opens the run's log, where `done` updates are already done."""
    experiment = ready.experiment
    self.loss = math.nan
    self._every, self._total = experiment.log_every, ready.total_steps
    self._rate = optimizer.learning_rate(experiment.optimizer, ready.total_steps)
    self._log = metrics.Metrics(ready.workdir, start=done)
    self._progress = metrics.Progress(experiment.name, ready.total_steps, done=done)

  def step(self, done: int, measured: Mapping[str, jax.Array]) -> bool:
    """Takes what the update that made `done` updates done measured; returns whether it is logged.

    Only a logged one is waited for.
    """
    if done != self._total and done % self._every:
      return False
    values = {name: float(value) for name, value in jax.device_get(dict(measured)).items()}
    self.loss = values["loss"]
    self._log.write(done, {**values, "lr": float(self._rate(done - 1))})
    self._progress.show(done, f"loss {self.loss:.4f}")
    return True

  def close(self) -> None:
    """Closes the log."""
    self._log.close()
