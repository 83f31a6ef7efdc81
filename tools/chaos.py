"""Kills training at random moments, over and over, and compares what comes of it bit by bit.

For each stage a small run is done once in peace. Then the same command is started, killed at
a random moment, and given again until it ends; a run that has ended is compared and the next
begins, until as many kills have hit:

  python tools/chaos.py --kills=50 --seed=0
  python tools/chaos.py --kills=20 --seed=1 --signal=TERM --stages=finetune

The moments are uniform over the time the undisturbed run took, from the start of the process
on. Prints a table for docs/reliability.md; a stage that is done lies in --out and is not done
again. Exit code 1 if anything differed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp
from PIL import Image

ROOT = Path(__file__).parent.parent
STAGES: Mapping[str, tuple[str, Mapping[str, object]]] = {
  "prealign": ("prealign,expert=clip", {}),
  "pretrain": ("pretrain", {"model.experts": "clip@demo"}),
  "finetune": ("finetune", {"model.experts": "clip@demo"}),
  "packed": (
    "finetune",
    {
      "model.experts": "clip@demo",
      "data.pack": True,
      "data.share": 2,
      "data.max_images": 1,
      "data.pack_images": 3,
      "data.workers": 2,
    },
  ),
}
"""What --stages names: argument of the recipe, and fields. The last is packed by two workers."""
STEPS, EVERY, RECORDS = 24, 3, 11
STOPPED = 42
"""Exit code of a run that was asked to stop and has saved."""
HEADER = (
  "| Stage | Signal | Seed | Hit starting or compiling | an update | a save | Runs compared "
  "| Equal | Minutes |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclasses.dataclass
class Tally:
  """What came of one stage.

  Attributes:
    starting: signals that came before the first update of an attempt.
    updating: signals between updates or in one.
    saving: signals while a checkpoint was being written.
    runs: that ended and were compared.
    equal: of those, the ones with the same bits.
    wrong: what differed, or which exit code was not promised.
    seconds: that it took.
  """

  starting: int = 0
  updating: int = 0
  saving: int = 0
  runs: int = 0
  equal: int = 0
  wrong: list[str] = dataclasses.field(default_factory=list)
  seconds: float = 0.0

  @property
  def hits(self) -> int:
    """Signals that found a process alive."""
    return self.starting + self.updating + self.saving


def write_data(folder: Path) -> dict[str, str]:
  """Writes pictures and records; returns the config fields that name them."""
  folder.mkdir(parents=True, exist_ok=True)
  records = []
  for n in range(RECORDS):
    Image.fromarray(np.full((6, 8, 3), 20 * n, np.uint8)).save(folder / f"{n}.png")
    turns = [
      {"from": "human", "value": "<image>\nWhat is shown?"},
      {"from": "gpt", "value": f"answer {n}"},
    ]
    records.append({"id": str(n), "image": f"{n}.png", "conversations": turns})
  (folder / "records.json").write_text(json.dumps(records))
  return {
    "data.records": str(folder / "records.json"),
    "data.images": str(folder),
    "data.tokenizer": str(ROOT / "eagle_jax" / "demo" / "assets" / "tokenizer.model"),
  }


def command(stage: str, workdir: Path, data: dict[str, str]) -> list[str]:
  """Returns the command line of a stage on eight emulated devices."""
  argument, more = STAGES[stage]
  fields = {
    "steps": STEPS,
    "log_every": 1,
    "checkpoints.every": EVERY,
    "checkpoints.keep": 2,
    "mesh.data": 2,
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
    "data.template": "brief",
    "data.aspect": "pad",
    "init_missing": True,
    **data,
    **more,
  }
  return [
    *(sys.executable, "-m", "eagle_jax", "train", f"--config=debug:{argument}"),
    *(f"--workdir={workdir}", "--devices=8"),
    *(f"--config.{name}={value}" for name, value in fields.items()),
  ]


def fingerprint(workdir: Path) -> dict[str, str]:
  """Returns what must be equal, each under its name: a digest of each array of the last
  checkpoint, parameters and optimizer's state; the position in the data; and all metrics.
  """
  steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
  last = workdir / "checkpoints" / str(max(steps))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that shardings are read from the checkpoint, as they are
    held = ocp.load_checkpointables(last, {"params": None, "optimizer": None})
  found = {
    jax.tree_util.keystr(path): f"{array.dtype} {array.shape} {_digest(array)}"
    for path, array in jax.tree_util.tree_leaves_with_path(held)
  }
  found |= {path.name: path.read_text() for path in (last / "data").iterdir()}
  return {**found, "step": last.name, "metrics": (workdir / "metrics.jsonl").read_text()}


def _digest(array: jax.Array) -> str:
  """Identifies the bits of an array [...]."""
  return hashlib.sha256(np.asarray(array).tobytes()).hexdigest()


def moments(seed: int, longest: float) -> Iterator[float]:
  """Yields seconds after which to send a signal, the same for the same seed."""
  draw = random.Random(seed)
  while True:
    yield draw.uniform(0, longest)


def phase(workdir: Path, rows: int) -> str:
  """Says what a run does: "saving", "updating" or, with `rows` metrics as before, "starting"."""
  if any((workdir / "checkpoints").glob("*.saving*")):
    return "saving"
  return "updating" if _rows(workdir) > rows else "starting"


def _rows(workdir: Path) -> int:
  """Counts the updates that are logged."""
  path = workdir / "metrics.jsonl"
  return path.read_bytes().count(b"\n") if path.exists() else 0


def disturb(arguments: list[str], workdir: Path, *, after: float, number: int) -> tuple[str, int]:
  """Starts a run and sends it a signal.

  Args:
    arguments: the command.
    workdir: of the run.
    after: seconds until the signal.
    number: of the signal.

  Returns:
    What the run was doing, '' if it had ended before; and its exit code.
  """
  rows = _rows(workdir)
  with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
    child = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log, env=_environment(workdir))
    try:
      return "", child.wait(timeout=after)
    except subprocess.TimeoutExpired:
      doing = phase(workdir, rows)
      child.send_signal(number)
      return doing, child.wait()


def _environment(workdir: Path) -> dict[str, str]:
  """Compiled programs are kept, so that an attempt takes seconds."""
  cache = workdir.parent / "compiled"
  return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}


def stage_under_fire(stage: str, folder: Path, options: argparse.Namespace) -> Tally:
  """Does one stage in peace, then under fire; returns what came of it."""
  data, begun, tally = write_data(folder / "data"), time.monotonic(), Tally()
  peace = folder / "peace"
  for again in (False, True):  # the second finds its programs compiled, as those under fire do
    peace = folder / f"peace-{int(again)}"
    since = time.monotonic()
    subprocess.run(
      command(stage, peace, data),
      cwd=ROOT,
      env=_environment(peace),
      check=True,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    longest = time.monotonic() - since
  expected = fingerprint(peace)
  if fingerprint(folder / "peace-0") != expected:
    tally.wrong.append("two undisturbed runs differ")
  number = signal.Signals[f"SIG{options.signal}"]
  allowed = {0, STOPPED} if number == signal.SIGTERM else {0, -number}
  for after in moments(options.seed, longest):
    if tally.hits >= options.kills and tally.runs:
      break
    workdir = folder / f"run-{tally.runs}"
    if tally.hits >= options.kills:
      after = 10 * longest  # the last run may end in peace
    doing, code = disturb(command(stage, workdir, data), workdir, after=after, number=number)
    if code not in allowed:
      tally.wrong.append(f"run {tally.runs}: exit code {code}")
      break
    if doing:
      setattr(tally, doing, getattr(tally, doing) + 1)
    if code == 0:
      compare(tally, fingerprint(workdir), expected)
  tally.seconds = time.monotonic() - begun
  return tally


def compare(tally: Tally, found: dict[str, str], expected: dict[str, str]) -> None:
  """Counts a run that has ended, and names what differs."""
  unequal = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
  if unequal:
    tally.wrong.append(f"run {tally.runs}: {', '.join(sorted(unequal))}")
  tally.equal += not unequal
  tally.runs += 1


def row(stage: str, tally: Tally, options: argparse.Namespace) -> str:
  """Returns a stage's row of the table."""
  cells = (
    *(stage, options.signal, options.seed, tally.starting, tally.updating, tally.saving),
    *(tally.runs, tally.equal, f"{tally.seconds / 60:.1f}"),
  )
  return f"| {' | '.join(map(str, cells))} |"


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the stages asked for; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kills", type=int, default=50, help="signals that must hit, per stage")
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
  parser.add_argument("--stages", default=",".join(STAGES), help="with commas in between")
  parser.add_argument("--out", type=Path, default=Path("chaos"), help="folder of runs and results")
  options = parser.parse_args(arguments)
  stages = options.stages.split(",")
  if unknown := set(stages) - set(STAGES):
    parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
  jax.config.update("jax_num_cpu_devices", 8)  # on which the runs' arrays lie
  wrong = []
  print(HEADER)
  for stage in stages:
    name = f"{stage}-{options.signal}-{options.kills}-{options.seed}"
    result = options.out.absolute() / f"{name}.json"
    if result.exists():
      tally = Tally(**json.loads(result.read_text()))
    else:
      tally = stage_under_fire(stage, options.out.absolute() / name, options)
      result.write_text(json.dumps(dataclasses.asdict(tally)))
    print(row(stage, tally, options), flush=True)
    wrong += [f"{stage}: {what}" for what in tally.wrong]
  print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
