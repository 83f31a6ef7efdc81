"""`eagle-jax data stats`: how many records, how long, and how well they pack.

eagle-jax data stats train.json --images=images --tokenizer=tokenizer.model --max-length=4096
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Sequence
from typing import Any

from eagle_jax.cli.data_source import asked, parser
from eagle_jax.data import pack, survey
from eagle_jax.data.survey import Summary

SHARES = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
"""Name → share of the records that have at most so many."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the action; returns the exit code."""
  reading = parser("stats", summary)
  reading.add_argument("--json", action="store_true", help="prints JSON")
  options, overrides = reading.read(arguments, overrides=True)
  given = asked(options, overrides)
  found = survey.survey(given.data, given.reader(decode=False), answered=given.answered)
  if options.json:
    print(json.dumps([figures(each) for each in found], indent=1))
  else:
    for each in found:
      print("\n".join(lines(each)))
  return 0


def figures(summary: Summary) -> dict[str, Any]:
  """Returns what is known of a source as JSON-able data."""
  found: dict[str, Any] = {
    "records": summary.source.records,
    "images": summary.source.images,
    "good": summary.good,
    "bad": dict(summary.tally.counts.most_common()),
    "duplicate_ids": summary.duplicates,
    "pictures": sum(value * count for value, count in summary.images.items()),
    "turns_per_record": _spread(summary.turns),
    "images_per_record": _spread(summary.images),
  }
  if summary.positions:
    length, slots = pack.row_shape(summary.data)
    found |= {
      "positions_per_record": _spread(summary.positions),
      "row_length": summary.data.max_length,
      "packed_row_length": length,
      "packed_row_images": slots,
      "cut": summary.cut,
      "without_target": summary.untaught,
      "targets": summary.targets,
      "packed_rows": summary.rows,
      "packed_fill": round(summary.fill, 4),
    }
  return found


def lines(summary: Summary) -> Iterator[str]:
  """Yields what is known of a source, for people."""
  known = figures(summary)
  yield (
    f"{known['records']}: {known['good']:,} good records with {known['pictures']:,} pictures, "
    f"{len(summary.tally):,} bad"
  )
  yield from (f"  {count:,} bad: {reason}" for reason, count in known["bad"].items())
  if known["duplicate_ids"]:
    yield f"  {known['duplicate_ids']:,} of the good have the id of one before them"
  for name in ("turns", "images", "positions"):
    if spread := known.get(f"{name}_per_record"):
      told = "  ".join(f"{share} {value:,}" for share, value in spread.items())
      yield f"  {name + ' per record':<22}{told}"
  if "row_length" not in known:
    yield "  give --tokenizer=FILE for lengths"
    return
  yield (
    f"  of rows of {known['row_length']:,}: {known['cut']:,} records are cut, "
    f"{known['without_target']:,} keep no target; {known['targets']:,} targets in all"
  )
  one_each = sum(min(n, known["row_length"]) * c for n, c in summary.positions.items())
  yield (
    f"  filled: {one_each / (summary.good * known['row_length']):.1%} with one record in a row, "
    f"{known['packed_fill']:.1%} packed into {known['packed_rows']:,} rows of "
    f"{known['packed_row_length']:,} positions and {known['packed_row_images']} image slots"
  )


def _spread(counts: collections.Counter[int]) -> dict[str, int]:
  """Returns the quantiles of SHARES by name; empty where nothing was counted."""
  return dict(zip(SHARES, survey.quantiles(counts, list(SHARES.values())), strict=False))
