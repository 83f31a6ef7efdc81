"""How fast a merged checkpoint is converted beside `cp` of the same bytes, and in how much memory.

    python -m bench.convert --config=eagle_x5_vicuna_7b --folder=/big/disk
    python -m bench.convert --config=eagle_x5_yi_34b --folder=/big/disk --layers=4 --rounds=1

Writes a synthetic checkpoint in upstream's layout, bfloat16, and then takes turns: copy,
convert, copy, convert. Caches of the source are dropped before each turn, and a turn
ends when the disk has every byte. Prints one JSON line for each turn and one summary.
With --layers the language model is cut to that many blocks, so that a large model's
tensors can be measured on a small disk; what is reported of memory is set against the
whole model all the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import ml_dtypes
import numpy as np

from eagle_jax import config
from eagle_jax.cli import config as cli_config
from eagle_jax.convert import engine, shards
from eagle_jax.convert.source import Entry
from eagle_jax.interchange import incoming, parts
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.model import eagle as eagle_lib

BF16 = np.dtype(ml_dtypes.bfloat16)
ROOT = pathlib.Path(__file__).resolve().parent.parent
CUT = "cut"  # name of the shortened language model
NOISE = 1 << 26  # bytes that tensors are cut from
SAMPLE_SECONDS = 0.02  # between two looks at a process's memory


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the benchmark; returns the exit code."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--config", default="eagle_x5_vicuna_7b", help="recipe of the model")
  parser.add_argument("--folder", type=pathlib.Path, required=True, help="needs thrice the model")
  parser.add_argument("--layers", type=int, default=0, help="of the language model; 0: all")
  parser.add_argument("--rounds", type=int, default=3, help="copies and conversions")
  options, overrides = parser.parse_known_args(arguments)
  model = cli_config.load(options.config, overrides).experiment.model
  folder = options.folder.resolve()
  source, recipe = folder / "source", ["--config=" + options.config, *overrides]
  if not source.exists():
    write(shortened(model, options.layers), source)
  size = sum(file.stat().st_size for file in source.iterdir())
  runs: dict[str, list[float]] = {"cp": [], "convert": []}
  peaks = []
  for turn in range(options.rounds):
    for what in runs:
      target = folder / f"{what}-{turn}"
      seconds, peak = _turn(what, source, target, recipe=recipe, layers=options.layers)
      runs[what].append(seconds)
      peaks += [peak] if what == "convert" else []
      _say(
        turn=turn, what=what, seconds=seconds, gb_per_s=size / seconds / 1e9, peak_anon_bytes=peak
      )
      shutil.rmtree(target)
  sizes = [shards.size(tensor) for tensor in outgoing(model)]
  ratios = [b / a for a, b in zip(runs["cp"], runs["convert"], strict=True)]
  _say(
    config=options.config,
    bytes=size,
    model_bytes=sum(sizes),
    largest_tensor_bytes=max(sizes),
    convert_over_cp=statistics.median(ratios),
    peak_anon_bytes=max(peaks),
    peak_share_of_model=max(peaks) / sum(sizes),
    bound_bytes=max(0.06 * sum(sizes), 2 * max(sizes) + 0.3e9),
  )
  return 0


def shortened(model: config.Model, layers: int) -> config.Model:
  """Returns the model with its language model cut to `layers` blocks; 0 leaves it whole."""
  if not layers:
    return model
  LANGUAGE_MODELS[CUT] = dataclasses.replace(LANGUAGE_MODELS[model.language], depth=layers)
  return dataclasses.replace(model, language=CUT)


def outgoing(model: config.Model) -> list[engine.Outgoing]:
  """Returns every tensor of a merged checkpoint of the model in bfloat16, made of noise."""
  part = parts.part(eagle_lib.build(model), parts.WHOLE)
  leaves = part.targets(part.schemes[0])[0]
  noise = np.random.default_rng(0).integers(0, 256, NOISE, np.uint8)

  found = []
  for tensor in engine.outgoing(part.table(part.schemes[0]), leaves):
    entry = Entry(tensor.entry.shape, BF16)
    make = functools.partial(_made, noise, entry)
    found.append(engine.Outgoing(tensor.name, entry, make))
  return found


def _made(noise: np.ndarray, entry: Entry) -> np.ndarray:
  """Returns noise, bytes [n], in the shape [...] of a tensor."""
  count = math.prod(entry.shape) * entry.dtype.itemsize
  return np.resize(noise, count).view(entry.dtype).reshape(entry.shape)


def write(model: config.Model, folder: pathlib.Path) -> None:
  """Writes the synthetic checkpoint as upstream would, in shards with their index."""
  partial = folder.with_name(folder.name + ".partial")
  partial.mkdir(parents=True)
  shards.write(partial, outgoing(model))
  partial.rename(folder)


def _turn(
  what: str, source: pathlib.Path, target: pathlib.Path, *, recipe: Sequence[str], layers: int
) -> tuple[float, int]:
  """Runs one turn in a process of its own; returns its seconds and its peak of memory."""
  for file in source.iterdir():
    with file.open("rb") as held:
      os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
  os.sync()
  commands: dict[str, Callable[[], list[str]]] = {
    "cp": lambda: ["cp", "-r", str(source), str(target)],
    "convert": lambda: [
      *(sys.executable, "-m", "bench.convert", "--one", str(source), str(target), str(layers)),
      *recipe,
    ],
  }
  begun = time.monotonic()
  with subprocess.Popen(commands[what](), stdout=subprocess.DEVNULL, cwd=ROOT) as process:
    peak = max(_memory(process))
  if process.returncode:
    raise SystemExit(process.returncode)
  subprocess.run(["sync", *map(str, _files(target))], check=True)
  return time.monotonic() - begun, peak


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields every file below a folder."""
  yield from (path for path in folder.rglob("*") if path.is_file())


def _memory(process: subprocess.Popen[bytes]) -> Iterator[int]:
  """Yields the anonymous resident memory of a process in bytes, until it ends."""
  yield 0
  while process.poll() is None:
    try:
      status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
      return
    yield from (int(row.split()[1]) * 1024 for row in status.splitlines() if "RssAnon" in row)
    time.sleep(SAMPLE_SECONDS)


def _one(source: str, target: str, layers: str, *recipe: str) -> int:
  """Converts once, as `eagle-jax convert` does, the language model cut to `layers` blocks."""
  experiment = cli_config.load(recipe[0].partition("=")[2], recipe[1:]).experiment
  experiment = dataclasses.replace(experiment, model=shortened(experiment.model, int(layers)))
  incoming.save(incoming.plan(source, parts.WHOLE, experiment), target)
  return 0


def _say(**facts: object) -> None:
  """Prints facts as one JSON line."""
  print(json.dumps(facts), flush=True)


if __name__ == "__main__":
  raise SystemExit(_one(*sys.argv[2:]) if sys.argv[1:2] == ["--one"] else main())
