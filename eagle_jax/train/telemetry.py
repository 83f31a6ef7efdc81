"""What a run measures while it goes, and whom it tells."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import jax

from eagle_jax.train import (
  goodput,
  metrics,
  optimizer,
  peaks,
  phases,
  prepared,
  profiling,
  progress,
  rates,
  tensorboard,
  work,
)

SPEED = metrics.SPEED_FILE
HELD = (work.TOKENS, work.POSITIONS, work.IMAGE_TOKENS, work.PAIRS, work.TARGETS)
"""What is kept of every update, logged or not."""


class Telemetry:
  """Fetches what the logged updates measured; the first process writes it down and shows it.

  Attributes:
    loss: of the last logged update, NaN before the first.
    phase: the run's phases. What waits for the devices counts as `step`, writing as `log`.
  """

  def __init__(
    self,
    ready: prepared.Run,
    done: int,
    *,
    current: phases.Phases | None = None,
    profile: profiling.Span | None = None,
  ):
    """Opens the run's logs.

    Args:
      ready: the run.
      done: updates that the restored state has done.
      current: the run's phases, the restore among them; new ones by default.
      profile: updates to trace.
    """
    self.loss, self.phase = math.nan, current or phases.Phases()
    self._every, self._total = ready.experiment.log_every, ready.total_steps
    self._rate = optimizer.learning_rate(ready.experiment.optimizer, ready.total_steps)
    self._held: list[Mapping[str, jax.Array]] = []
    first = jax.process_index() == 0 and done < ready.total_steps
    self._report = _Report(ready, done, self.phase, profile=profile) if first else None

  def step(self, done: int, measured: Mapping[str, jax.Array]) -> bool:
    """Takes what the update that made `done` updates done measured; returns whether it is logged.

    Only a logged one is waited for.
    """
    self._held.append({name: measured[name] for name in HELD if name in measured})
    if self._report:
      with self.phase(rates.PROFILE):
        self._report.profiler.step(done, measured)
    if done != self._total and done % self._every:
      return False
    with self.phase(phases.STEP):
      fetched = jax.device_get((dict(measured), self._held))
    values, held = jax.tree.map(float, fetched)
    self._held = []
    self.loss = values["loss"]
    if self._report:
      pace = self._report.pace(held)
      with self.phase(rates.LOG):
        self._report.update(done, {**values, "lr": float(self._rate(done - 1))}, pace)
    return True

  def close(self) -> None:
    """Says where the time went, and closes the logs."""
    if self._report:
      self._report.close(len(self._held))


class _Report:
  """All that one process writes for all of them.

  Attributes:
    profiler: traces updates where that is asked for.
  """

  def __init__(
    self,
    ready: prepared.Run,
    done: int,
    phase: phases.Phases,
    *,
    profile: profiling.Span | None,
  ):
    """Opens everything; traces the model once, to know what an update needs."""
    folder, self._done = ready.workdir, done
    devices = ready.mesh.devices.size
    kind = ready.mesh.devices.flat[0].device_kind
    begun = time.time() - sum(phase.seconds.values())
    with phase(phases.COMPILE):
      shapes = {path: leaf.shape for path, leaf in ready.abstract.items()}
      needed = work.measure(ready.eagle, shapes, ready.chosen)
    self._rates = rates.Rates(phase, needed, kind=kind, devices=devices)
    self._attempt = 1 + max((r["attempt"] for r in metrics.read(folder, SPEED)), default=0)
    self._log = metrics.Metrics(folder, start=done)
    self._speed = metrics.Metrics(folder, name=SPEED)
    self._events = tensorboard.EventFile(folder, start=done)
    self._progress = progress.Progress(ready.experiment.name, ready.total_steps, done=done)
    with phase(rates.PROFILE):
      self.profiler = profiling.Profiler(folder, done=done, wanted=profile)
    self._folder = folder
    self._write_speed({"time": begun, "updates": 0.0, "seconds": 0.0})

  def pace(self, held: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns what the clock says of the updates since the last logged one."""
    return {**self._rates.row(held), **peaks.memory()}

  def update(self, done: int, values: Mapping[str, float], pace: Mapping[str, float]) -> None:
    """Tells of the updates since the last logged one."""
    self._done = done
    self._log.write(done, values)
    self._write_speed(pace)
    told = {f"speed/{name}": value for name, value in pace.items() if name != "time"}
    self._events.write(done, {**values, **told})
    note = f"loss {values['loss']:.4f} · {rates.note(pace)}"
    self._progress.show(done, note, pace=self._rates.overall)

  def close(self, updates: int) -> None:
    """Writes down the rest of the time, with so many updates in it, and the account of it all."""
    self.profiler.close()
    self._done += updates
    self._write_speed(self._rates.row([{}] * updates))
    for file in (self._log, self._speed, self._events):
      file.close()
    account = goodput.account(metrics.read(self._folder, SPEED))
    if account:
      print(account, flush=True)

  def _write_speed(self, row: Mapping[str, float]) -> None:
    """Appends a row to what the clock says."""
    self._speed.write(self._done, {"attempt": float(self._attempt), **row})
