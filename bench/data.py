"""How fast pictures and conversations come from the disk, beside what bounds them.

    python -m bench.data --folder=/big/disk --tokenizer=FOLDER

Makes JPEG files that are as hard to decode as photographs, records about them and a shard of
both, and then takes turns: what is measured, what bounds it, again. A ratio is the median
of those of the turns, so that other work on the machine weighs on both sides. Prints
one JSON line for each, with its goal and whether that is met:

  array_record   bytes of a shard's records, beside those of the file read from end to end
  host_resize    the pipeline, pictures made square by Pillow, beside 1/(1/decode + 1/resize)
  device_resize  the pipeline that leaves squares to a device, beside decoding alone
  canvases       the same without conversations: decoded, drawn and put on canvases
  tokens         tokenised and packed samples in one thread, beside the pictures of either way

Decoding alone ends with Pillow's own pixels; `arrays_ratio` is beside decoding to an array of
NumPy, which is less strict. Decoding, resizing and reading run in as many threads as the
machine has cores, as the pipeline does without workers; --workers lists for how many worker
processes the pipelines are measured. Beside the rates of time stand those of processor time,
on which other work on the machine weighs less, where no workers are: theirs is not known.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grain
import numpy as np
from PIL import Image

from eagle_jax import config
from eagle_jax.data import build, canvas, image, mixture, pipeline, planned, sources, tokenize
from eagle_jax.data.loader import Elements, Loaded, Loader
from eagle_jax.data.records import BadRecords, Limits

SIZES = ((640, 480), (480, 640), (640, 427), (800, 600), (1024, 768), (1024, 1024))
"""Widths and heights of the pictures, in turn."""
WORDS = ("a", "the", "red", "house", "stands", "beside", "old", "river,", "where", "people", "wait")
PER_IMAGE = 1024  # positions
ROWS = 8  # of a batch
ASPECT = "pad"
BLOCK = 1 << 20  # bytes read at once from a plain file
PIECE = 16  # records that a thread reads at once
GOALS = {
  "host_resize": 0.90,
  "device_resize": 0.85,
  "canvases": 0.85,
  "tokens": 10.0,
  "array_record": 0.8,
}
"""What a ratio is to be at least."""


class Rate(NamedTuple):
  """How fast something went: units a second, and units a second of processor time."""

  wall: float
  cpu: float


class Clock:
  """Runs from when it is made."""

  def __init__(self) -> None:
    """Starts."""
    self._begun = time.perf_counter(), time.process_time()

  def rate(self, units: float) -> Rate:
    """Returns how fast so many units went."""
    wall, cpu = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
    return Rate(units / wall, units / cpu)


class Task(NamedTuple):
  """What is read, and how much of it."""

  data: config.Data
  shards: str
  pictures: int
  side: int


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the benchmark; returns the exit code."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--folder", type=pathlib.Path, required=True, help="what is made goes here")
  parser.add_argument("--tokenizer", required=True, help="a file, or a folder that holds one")
  parser.add_argument("--pictures", type=int, default=120, help="files that are made")
  parser.add_argument("--records", type=int, default=2400, help="about these pictures")
  parser.add_argument("--count", type=int, default=240, help="pictures of a turn")
  parser.add_argument("--side", type=int, default=1024, help="pixels of the square")
  parser.add_argument("--workers", default="0,2", help="processes of the pipeline, in turn")
  parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
  options = parser.parse_args(arguments)
  folder = options.folder.resolve()
  if not folder.exists() or not any(folder.iterdir()):
    prepare(folder, options.pictures, options.records)
  data = config.Data(
    records=str(folder / "records.json"),
    images=str(folder / "pictures"),
    tokenizer=options.tokenizer,
    aspect=ASPECT,
  )
  task = Task(data, str(folder / "shards"), options.count, options.side)
  compare_reading(task, options.rounds)  # while the process is small
  for count in map(int, options.workers.split(",")):
    some = task._replace(data=dataclasses.replace(data, workers=count))
    images = compare_images(some, options.rounds)
    compare_tokens(some, options.rounds, images)
  return 0


def prepare(folder: pathlib.Path, pictures: int, records: int) -> None:
  """Writes pictures, records about them and a shard of both; the same for the same numbers."""
  partial = folder.with_name(folder.name + ".partial")
  (partial / "pictures").mkdir(parents=True)
  for n in range(pictures):
    Image.fromarray(scene(*SIZES[n % len(SIZES)], n)).save(
      partial / "pictures" / f"{n}.jpg", quality=90
    )
  chance = random.Random(0)
  turns = [_conversation(chance) for _ in range(records)]
  told = [
    {"id": str(n), "image": f"{n % pictures}.jpg", "conversations": each}
    for n, each in enumerate(turns)
  ]
  (partial / "records.json").write_text(json.dumps(told))
  partial.rename(folder)
  source = config.Source(records=str(folder / "records.json"), images=str(folder / "pictures"))
  build.build(build.Wanted(source, Limits(1), 0.0, 1 << 40), str(folder / "shards"))


def scene(width: int, height: int, seed: int) -> np.ndarray:
  """Returns uint8 [height, width, 3] whose detail falls off as in a photograph."""
  chance = np.random.default_rng(seed)
  total = np.full((height, width, 3), 128, np.float32)
  for octave in range(8):
    coarse = chance.integers(0, 256, (height >> octave or 1, width >> octave or 1, 3), np.uint8)
    grown = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    total += (np.asarray(grown, np.float32) - 128) * (0.05 * 1.6**octave)
  return np.clip(total, 0, 255).astype(np.uint8)


def _conversation(chance: random.Random) -> list[dict[str, str]]:
  """Returns one to four questions, the first about the picture, and their answers."""
  turns = []
  for n in range(chance.randint(1, 4)):
    question = ("<image>\n" if n == 0 else "") + " ".join(chance.choices(WORDS, k=8))
    answer = " ".join(chance.choices(WORDS, k=chance.randint(5, 80)))
    turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
  return turns


def compare_images(task: Task, rounds: int) -> dict[str, list[Rate]]:
  """Measures pictures a second, each way; returns the rates of all turns."""
  folder = pathlib.Path(task.data.images)
  paths = [str(path) for path in sorted(folder.iterdir(), key=lambda path: int(path.stem))]
  paths = (paths * -(-task.pictures // len(paths)))[: task.pictures]
  decoded = [_decoded(path) for path in paths[: 2 * len(SIZES)]]
  square = functools.partial(image.preprocess, side=task.side, aspect=ASPECT)
  ways: dict[str, Callable[[], Rate]] = {
    "decode": lambda: _threaded(_decoded, paths),
    "arrays": lambda: _threaded(lambda path: np.asarray(_decoded(path)), paths),
    "resize": lambda: _threaded(square, (decoded * -(-len(paths) // len(decoded)))[: len(paths)]),
    "host_resize": lambda: batches(task, device_resize=False),
    "device_resize": lambda: batches(task, device_resize=True),
    "canvases": lambda: canvases(task, paths),
  }
  rates = taken_in_turn(ways, rounds)
  serial = [
    Rate(*(1 / (1 / a + 1 / b) for a, b in zip(*pair, strict=True)))
    for pair in zip(rates["decode"], rates["resize"], strict=True)
  ]
  facts: dict[str, object] = {"cores": os.cpu_count(), "side": task.side}
  for way in ("decode", "resize"):
    facts[f"{way}_per_s"] = statistics.median(rate.wall for rate in rates[way])
  _say("host_resize", "images_per_s", rates["host_resize"], task=task, bounds=serial, **facts)
  for way in ("device_resize", "canvases"):
    pairs = zip(rates[way], rates["arrays"], strict=True)
    facts["arrays_ratio"] = statistics.median(a.wall / b.wall for a, b in pairs)
    _say(way, "images_per_s", rates[way], task=task, bounds=rates["decode"], **facts)
  return rates


def _decoded(path: str) -> Image.Image:
  """Decodes a file with Pillow, and does nothing else."""
  with Image.open(path) as held:
    held.load()
    return held


def batches(task: Task, *, device_resize: bool) -> Rate:
  """Returns pictures a second of the pipeline."""
  made = pipeline.make_iterator(
    dataclasses.replace(task.data, device_resize=device_resize),
    batch_size=ROWS,
    seed=0,
    image_size=task.side,
    tokens_per_image=PER_IMAGE,
  )
  return _rate_of_batches(made, task.pictures, made.close)


def canvases(task: Task, paths: Sequence[str]) -> Rate:
  """Returns pictures a second of the pipeline's machinery that only draws them on canvases."""

  def make(number: int) -> Loaded:
    """Reads one picture."""
    return Loaded(canvas.draw(image.read(paths[number % len(paths)]), task.side, ASPECT), ())

  # As many as a data set holds: Grain takes 0.1 to 0.5 ms to shuffle one number of few hundred,
  # and 0.01 ms of a million.
  numbers = grain.MapDataset.range(1 << 20).seed(0).shuffle().repeat()
  bad = BadRecords(budget=0.0, total=len(paths))
  elements = Elements(numbers.map(make), workers=task.data.workers, ahead=2 * ROWS, bad=bad)
  made = iter(lambda: canvas.stack(elements.take(ROWS)), None)
  return _rate_of_batches(made, task.pictures, elements.close)


def _rate_of_batches(batches: Any, count: int, close: Callable[[], None]) -> Rate:
  """Returns rows a second of batches; the first one, which starts everything, is not timed."""
  next(batches)
  steps = max(1, count // ROWS)
  clock = Clock()
  for _ in range(steps):
    next(batches)
  rate = clock.rate(steps * ROWS)
  close()
  return rate


def compare_tokens(task: Task, rounds: int, images: dict[str, list[Rate]]) -> None:
  """Measures samples a second that are tokenised and packed, pictures left out."""
  data = task.data
  found, _ = mixture.load(data)
  loader = Loader(
    found,
    data,
    tokenizer=tokenize.load(data.tokenizer),
    image_size=task.side,
    tokens_per_image=PER_IMAGE,
  )
  plan = planned.packed(data, rows=ROWS)

  def once() -> Rate:
    """Takes every record once."""
    clock = Clock()
    samples = [loader.measure(number) for number in range(len(found))]
    plan.make(samples)
    return clock.rate(len(samples))

  rates = taken_in_turn({"tokens": once}, rounds)["tokens"]
  for way in ("host_resize", "device_resize"):
    _say("tokens", "samples_per_s", rates, task=task, bounds=images[way], beside=way)


def compare_reading(task: Task, rounds: int) -> None:
  """Measures bytes a second of a shard's records and of the file, caches dropped."""
  (shard,) = pathlib.Path(task.shards).glob("*.array_record*")
  size = shard.stat().st_size

  def raw() -> Rate:
    """Reads the file from end to end."""
    _forget(shard)
    block = bytearray(BLOCK)
    clock = Clock()
    with shard.open("rb", buffering=0) as file:
      while file.readinto(block):
        pass
    return clock.rate(size / 1e6)

  def in_order() -> Rate:
    """Reads every record, its conversation parsed and its pictures taken out."""
    _forget(shard)
    opened = sources.open_source(task.shards, "", Limits(1))
    pieces = [range(n, min(n + PIECE, len(opened))) for n in range(0, len(opened), PIECE)]

    def read(numbers: range) -> int:
      """Returns bytes of pictures."""
      return sum(len(picture) for number in numbers for picture in opened[number].images)

    return _threaded(read, pieces, size / 1e6)

  rates = taken_in_turn({"array_record": in_order, "raw": raw}, rounds)
  _say(
    "array_record", "mb_per_s", rates["array_record"], task=task, bounds=rates["raw"], bytes=size
  )


def taken_in_turn(ways: dict[str, Callable[[], Rate]], rounds: int) -> dict[str, list[Rate]]:
  """Returns what each way measures, one after the other in every round."""
  measured: dict[str, list[Rate]] = {way: [] for way in ways}
  for _ in range(rounds):
    for way, run in ways.items():
      measured[way].append(run())
  return measured


def _threaded(make: Callable[[Any], Any], items: Iterable[Any], units: float | None = None) -> Rate:
  """Returns units, or items, a second of as many threads as there are cores."""
  items = list(items)
  with ThreadPoolExecutor(os.cpu_count()) as pool:
    clock = Clock()
    for _ in pool.map(make, items):
      pass
    return clock.rate(len(items) if units is None else units)


def _forget(path: pathlib.Path) -> None:
  """Has the system drop what it holds of a file in memory."""
  with path.open("rb") as held:
    os.fsync(held.fileno())
    os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _say(
  what: str,
  unit: str,
  rates: Sequence[Rate],
  *,
  task: Task,
  bounds: Sequence[Rate],
  **facts: object,
) -> None:
  """Prints one JSON line: medians of both sides, and of the ratios of their turns."""
  pairs = list(zip(rates, bounds, strict=True))
  ratio = statistics.median(a.wall / b.wall for a, b in pairs)
  told: dict[str, object] = {
    "what": what,
    "workers": task.data.workers,
    unit: statistics.median(rate.wall for rate in rates),
    "bound": statistics.median(rate.wall for rate in bounds),
    "ratio": ratio,
    "goal": GOALS[what],
    "pass": ratio >= GOALS[what],
    "turns": len(rates),
  }
  if not task.data.workers:
    told["cpu_ratio"] = statistics.median(a.cpu / b.cpu for a, b in pairs)
    told[f"{unit}_cpu"] = statistics.median(rate.cpu for rate in rates)
  print(json.dumps({**told, **facts}), flush=True)


if __name__ == "__main__":
  sys.exit(main())
