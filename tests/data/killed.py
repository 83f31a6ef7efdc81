"""Draws batches in a process of its own, which may be killed at any time and goes on where it was.

python -m tests.data.killed FOLDER

FOLDER holds asked.json: the data and how many steps. A line of log.txt is a step and the digest
of its batch; state.json is replaced whole every few steps, as a checkpoint is.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import sys

import numpy as np

from eagle_jax import config
from eagle_jax.data import pipeline, planned

EVERY = 3
"""Steps from one saved state to the next."""
WINDOW = 16
"""Samples that are packed together, so few that some steps use them up."""


def ask(folder, data, steps):
  """Writes what `main` is to draw."""
  folder.mkdir(exist_ok=True)
  asked = {"data": dataclasses.asdict(data), "steps": steps}
  (folder / "asked.json").write_text(json.dumps(asked))


def stream(data):
  """Batches of the data."""
  return pipeline.make_iterator(data, batch_size=2, seed=5, image_size=8, tokens_per_image=4)


def digest(batch):
  """Stands for all that is in a batch."""
  names = ("tokens", "loss_mask", "valid", "positions", "segments", "images")
  leaves = [np.asarray(getattr(batch, name)) for name in names if getattr(batch, name) is not None]
  said = [repr((leaf.shape, leaf.dtype)).encode() + leaf.tobytes() for leaf in leaves]
  return hashlib.sha256(b"".join(said)).hexdigest()


def log(folder):
  """(step, digest) of every line so far, of a killed line nothing."""
  path = folder / "log.txt"
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  told = [line.split() for line in lines if line.endswith("\n")]
  return [(int(words[0]), words[1]) for words in told if len(words) == 2 and len(words[1]) == 64]


def main(folder):
  """Draws what is left of the steps, while the process that started it is there."""
  parent = os.getppid()
  planned.PACKED_SAMPLES = WINDOW
  asked = json.loads((folder / "asked.json").read_text())
  given = asked["data"]
  sources = tuple(config.Source(**each) for each in given["sources"])
  lengths = tuple(given["lengths"])
  batches = stream(config.Data(**{**given, "sources": sources, "lengths": lengths}))
  state, done = folder / "state.json", 0
  if state.exists():
    saved = json.loads(state.read_text())
    done = saved["step"]
    batches.set_state(saved["stream"])
  with (folder / "log.txt").open("a", buffering=1) as told:
    told.write("\n")  # behind a line that was killed
    for step in range(done, asked["steps"]):
      if os.getppid() != parent:
        break
      told.write(f"{step} {digest(next(batches))}\n")
      if (step + 1) % EVERY == 0:
        partial = state.with_suffix(".partial")
        partial.write_text(json.dumps({"step": step + 1, "stream": batches.get_state()}))
        os.replace(partial, state)
  batches.close()


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
