"""Trains a small model for many steps, watches the process from outside, and looks for growth.

  python -m tools.longrun --steps=20000

The run saves every 250 steps, keeps two checkpoints and has a watchdog of one minute. Every
second its resident memory, threads and open files are read from /proc. Over the second half of
the run a line is laid through each by least squares. Prints a table for docs/reliability.md.
Exit code 1 if threads or open files grow by one or memory by 10 MB in 20,000 steps, if other
checkpoints are left than were to be kept, or if the watchdog spoke. Linux alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tools import chaos

EVERY, KEEP = 250, 2
PER = 20_000
"""Steps that growth is given for."""
LIMITS = {"Resident memory, MB": 10.0, "Threads": 1.0, "Open files": 1.0}
"""Growth in PER steps from which on a run does not last."""
HEADER = "| Of the process | Halfway | At the end | Growth in 20,000 steps | Steps | Minutes |"


@dataclasses.dataclass(frozen=True)
class Sample:
  """One look at a process.

  Attributes:
    steps: updates that are logged.
    values: resident memory in MB, threads, open files; in the order of LIMITS.
  """

  steps: int
  values: tuple[float, float, float]


def command(workdir: Path, data: dict[str, str], steps: int) -> list[str]:
  """Returns the command line of the run, on one device."""
  fields = {
    "steps": steps,
    "log_every": 10,
    "checkpoints.every": EVERY,
    "checkpoints.keep": KEEP,
    "watchdog_minutes": 1,
    "data.template": "brief",
    "data.aspect": "pad",
    "model.experts": "clip@demo",
    "init_missing": True,
    **data,
  }
  return [
    *(sys.executable, "-m", "eagle_jax", "train", "--config=debug:finetune"),
    f"--workdir={workdir}",
    *(f"--config.{name}={value}" for name, value in fields.items()),
  ]


def look(process: int, metrics: Path) -> Sample | None:
  """Returns how a process is; None where it has not logged yet, or has ended."""
  try:
    status = Path(f"/proc/{process}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    values = (int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), files)
    return Sample(10 * metrics.read_bytes().count(b"\n"), values)
  except (OSError, KeyError):
    return None


def growth(samples: Sequence[Sample], steps: int) -> list[tuple[float, float, float]]:
  """Lays a line through each value over the second half of a run.

  Returns:
    For each of LIMITS: what the line has halfway, at the end, and how much it rises in PER steps.

  Raises:
    SystemExit: if there are fewer than ten looks at the second half.
  """
  later = [one for one in samples if one.steps >= steps / 2]
  if len(later) < 10:
    sys.exit(f"ten looks at the second half are needed, there are {len(later)}: raise --steps")
  at = np.array([one.steps for one in later], float)
  found = []
  for values in zip(*(one.values for one in later), strict=True):
    rise, start = np.polyfit(at, values, 1)
    found.append((start + rise * steps / 2, start + rise * steps, rise * PER))
  return found


def watch(arguments: list[str], workdir: Path) -> list[Sample]:
  """Runs a command and looks at it every second; the log lies beside its folder.

  Raises:
    SystemExit: if the run fails; names the log.
  """
  samples = []
  path = workdir.parent / f"{workdir.name}.log"
  with path.open("wb") as log:
    child = subprocess.Popen(arguments, cwd=chaos.ROOT, stdout=log, stderr=log)
    while child.poll() is None:
      time.sleep(1)
      if found := look(child.pid, workdir / "metrics.jsonl"):
        samples.append(found)
  if child.returncode:
    sys.exit(f"the run ended with {child.returncode}: {path}")
  return samples


def complaints(workdir: Path, found: Sequence[tuple[float, float, float]], steps: int) -> list[str]:
  """Returns what is not as it should be."""
  wrong = [
    f"{what} grow by {rise:.3g} in {PER} steps, {limit:g} or more"
    for (what, limit), (_, _, rise) in zip(LIMITS.items(), found, strict=True)
    if rise >= limit
  ]
  kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  expected = [steps - EVERY * n for n in reversed(range(KEEP))]
  if kept != expected:
    wrong.append(f"checkpoints {expected} should be left, there are {kept}")
  if alarms := sorted(path.name for path in workdir.glob("stacks-*.txt")):
    wrong.append(f"the watchdog has written {', '.join(alarms)}")
  return wrong


def main(arguments: Sequence[str] | None = None) -> int:
  """Does the run; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=PER, help=f"a multiple of {EVERY}")
  parser.add_argument("--out", type=Path, default=Path("longrun"), help="folder, not there yet")
  options = parser.parse_args(arguments)
  if options.steps < KEEP * EVERY or options.steps % EVERY:
    parser.error(f"--steps must be a multiple of {EVERY}, {KEEP * EVERY} or more")
  out = options.out.absolute()
  if out.exists():
    parser.error(f"--out must be a new folder, {out} is there")
  data, begun = chaos.write_data(out / "data"), time.monotonic()
  samples = watch(command(out / "run", data, options.steps), out / "run")
  minutes = (time.monotonic() - begun) / 60
  found = growth(samples, options.steps)
  print(f"{HEADER}\n|---|---|---|---|---|---|")
  for what, (half, end, rise) in zip(LIMITS, found, strict=True):
    cells = (what, f"{half:.1f}", f"{end:.1f}", f"{rise:+.2f}", options.steps, f"{minutes:.1f}")
    print(f"| {' | '.join(map(str, cells))} |")
  wrong = complaints(out / "run", found, options.steps)
  print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
