"""`eagle-jax data build`: any source as shards that are read at random and fast.

eagle-jax data build train.json --images=images --to=shards --licence=CC-BY-4.0
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from eagle_jax import config
from eagle_jax.cli.parser import Parser, positive
from eagle_jax.data import build
from eagle_jax.data.records import Limits
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

DEFAULTS = config.Data()


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the action; returns the exit code."""
  parser = Parser("data build", summary)
  parser.add_argument("source", metavar="SOURCE", help="a file, a folder or FORMAT:PATH")
  parser.add_argument("--to", metavar="DIR", help="a new folder; interrupted, it goes on there")
  add_limits(parser)
  parser.add_argument("--licence", default="", metavar="NAME", help="kept with the records")
  parser.add_argument(
    "--shard-mb", type=positive, default=256, metavar="N", help="size of a shard, 256 by default"
  )
  parser.add_argument(
    "--format", default="array_record", metavar="NAME", help="array_record, the default, or tfds"
  )
  options, _ = parser.read(arguments)
  if not options.to:
    raise EagleError("data build needs --to=DIR, the folder that the records go to")
  writer = lookup(WRITERS, options.format, what="format that data build writes")
  wanted = build.Wanted(
    config.Source(records=options.source, images=options.images, licence=options.licence),
    Limits(options.max_images, answered=not options.questions),
    budget=options.bad_budget,
    shard_bytes=options.shard_mb * 10**6,
  )
  print(writer(wanted, options.to))
  return 0


def add_limits(parser: Parser) -> None:
  """Adds the flags that say which records are good."""
  parser.add_argument(
    "--images", default="", metavar="DIR", help="folder that image names are relative to"
  )
  parser.add_argument(
    "--max-images", type=positive, default=64, metavar="N", help="more make a record bad; 64"
  )
  parser.add_argument(
    "--bad-budget",
    type=share,
    default=DEFAULTS.bad_budget,
    metavar="SHARE",
    help=f"share of bad records above which it stops, {DEFAULTS.bad_budget} by default",
  )
  parser.add_argument(
    "--questions", action="store_true", help="records need no answer, as those of a benchmark"
  )


def share(text: str) -> float:
  """Reads a number from 0 to 1."""
  try:
    value = float(text)
  except ValueError:
    value = -1.0
  if not 0 <= value <= 1:
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, it is {text!r}")
  return value


def _shards(wanted: build.Wanted, folder: str) -> str:
  """Writes ArrayRecord; returns what is said of it."""
  from eagle_jax.train.progress import Progress

  line: Progress | None = None

  def progress(done: int, total: int) -> None:
    """Shows how far it is; a build that goes on counts from where it stopped."""
    nonlocal line
    line = line or Progress("building", total, done=done)
    line.show(done)

  return told(build.build(wanted, folder, progress=progress), folder)


def told(manifest: dict[str, Any], folder: str) -> str:
  """Returns what was built, for people."""
  size = sum(shard["bytes"] for shard in manifest["shards"])
  bad = ", ".join(f"{reason} ({count})" for reason, count in manifest["bad"].items())
  return (
    f"{folder}: {manifest['records']:,} records, {size / 1e6:,.1f} MB in "
    f"{len(manifest['shards'])} shards; left out: {bad or 'none'}"
  )


def _tfds(wanted: build.Wanted, folder: str) -> str:
  """Writes a TFDS data set; returns what is said of it."""
  from eagle_jax.data import tfds_builder

  return f"{tfds_builder.write(wanted, folder)} is a source to train on"


WRITERS: dict[str, Callable[[build.Wanted, str], str]] = {
  "array_record": _shards,
  "tfds": _tfds,
}
