"""Updates that were skipped: which, of which records, and when to give up."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import jax

from eagle_jax.checkpoint import together
from eagle_jax.checkpoint.params import CHECKPOINTS
from eagle_jax.data import pipeline
from eagle_jax.errors import EagleError
from eagle_jax.train import metrics

FILE = "bad_steps.jsonl"


class BadSteps:
  """Counts updates that the device skipped; bad_steps.jsonl names the records of each.

  What an update measured stays on the device until `settle`, so that no step is waited for.
  """

  def __init__(self, workdir: str, stream: pipeline.BatchIterator, *, limit: int, done: int):
    """Drops what a killed run noted after update `done`.

    Args:
      workdir: folder of the run.
      stream: of the batches; only asked which records they have.
      limit: skipped updates in a row at which the run ends.
      done: updates that the restored state has done.
    """
    self._workdir, self._stream, self._limit = workdir, stream, limit
    primary = together.is_primary()
    self._log = metrics.Metrics(workdir, start=done, name=FILE) if primary else None
    self._pending: list[tuple[int, Mapping[str, jax.Array], Any]] = []
    self._row = 0  # skipped updates up to here without one between them

  def note(self, step: int, measured: Mapping[str, jax.Array], position: Any) -> None:
    """Takes what update `step` measured, and where its batch stands in the stream."""
    kept = {name: measured[name] for name in ("skipped", "loss", "grad_norm")}
    self._pending.append((step, kept, position))

  def settle(self) -> None:
    """Looks at everything noted. Every process must call it, after the same update.

    Raises:
      EagleError: if as many updates in a row were skipped as must not be.
    """
    pending, self._pending = self._pending, []
    for step, measured, position in pending:
      values = {name: float(value) for name, value in jax.device_get(dict(measured)).items()}
      self._row = self._row + 1 if values["skipped"] else 0
      if self._row:
        self._write(step, values, position)
      if self._row == self._limit:
        raise EagleError(
          f"at most {self._limit - 1} updates in a row may be skipped (optimizer.max_skipped), "
          f"but {self._limit} were, the last at step {step}: loss {values['loss']:g}, gradient "
          f"norm {values['grad_norm']:g}. {self._workdir}/{FILE} names their records"
        )

  def _write(self, step: int, values: Mapping[str, float], position: Any) -> None:
    """Notes a skipped update with the records of all processes."""
    mine = {"process": jax.process_index(), "position": position}
    records = together.gather(json.dumps({**mine, "records": self._stream.records(position)}))
    told = {name: repr(values[name]) for name in ("loss", "grad_norm")}  # JSON has no NaN
    row: dict[str, Any] = {**told, "batch": [json.loads(text) for text in records]}
    if self._log is not None:
      row["replay"] = replay(self._workdir, step)
      self._log.write(step, row)
      what = ", ".join(f"{name} {value}" for name, value in told.items())
      print(f"step {step} skipped: {what}; its records are in {FILE}", flush=True)

  def close(self) -> None:
    """Closes the file."""
    if self._log is not None:
      self._log.close()


def replay(workdir: str, step: int) -> str:
  """Returns the shell command that does update `step` again, in a folder of its own.

  It begins at the last checkpoint before, and comes to the same state and the same batch.
  """
  folder, again = pathlib.Path(workdir), pathlib.Path(f"{workdir.rstrip('/')}-replay")
  names = [p.name for p in (folder / CHECKPOINTS).glob("*") if p.name.isdigit()]
  before = max((int(name) for name in names if int(name) < step), default=None)
  begin = [["mkdir", "-p", str(again / CHECKPOINTS)]]
  if before is not None:
    begin.append(["cp", "-r", str(folder / CHECKPOINTS / str(before)), str(again / CHECKPOINTS)])
  given, flags = iter(sys.argv[1:]), []
  for flag in given:
    if flag == "--workdir":
      next(given, None)
    elif not flag.startswith("--workdir="):
      flags.append(flag)
  program = shutil.which("eagle-jax") or f"{sys.executable} -m eagle_jax"
  train = f"{program} {shlex.join([*flags, f'--workdir={again}'])}"
  return " && ".join([*map(shlex.join, begin), train])
