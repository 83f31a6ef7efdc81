"""`eagle-jax data validate`: every record and picture read once, what is wrong by reason.

eagle-jax data validate train.json --images=images --tokenizer=tokenizer.model --out=report.html
"""

from __future__ import annotations

import html
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eagle_jax.cli.data_source import asked, parser, write
from eagle_jax.cli.data_stats import figures, lines
from eagle_jax.data import mixture, survey
from eagle_jax.data.records import Fault
from eagle_jax.data.survey import Summary
from eagle_jax.demo import page
from eagle_jax.errors import EagleError
from eagle_jax.train.progress import Progress

SUFFIXES = (".json", ".html")


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the action; returns 0 if the data is good and 1 if too much of it is bad."""
  reading = parser("validate", summary)
  reading.add_argument("--out", metavar="FILE", help="report.json or report.html; both are written")
  options, overrides = reading.read(arguments, overrides=True)
  given = asked(options, overrides)
  out = pathlib.Path(options.out) if options.out else None
  if out and out.suffix not in SUFFIXES:
    raise EagleError(f"--out names a .json or .html file, {options.out!r} is none")
  line: Progress | None = None

  def progress(done: int, total: int) -> None:
    """Shows how far a source is; the next one has a line of its own."""
    nonlocal line
    if done == 1 or line is None:
      line = Progress("validating", total)
    line.show(done)

  reader = given.reader(decode=True)
  # JSON is gone through once before its records have numbers, which no bar can show.
  places = ", ".join(each.records for each in mixture.listed(given.data))
  print(f"looking through {places}", file=sys.stderr)
  found = list(survey.survey(given.data, reader, answered=given.answered, progress=progress))
  told = report(found, given.data.bad_budget)
  for each in found:
    print("\n".join(lines(each)))
    print("".join(f"    {named(fault)}\n" for fault in each.tally.first), end="")
  print(verdict(told))
  if out:
    write(out.with_suffix(".json"), json.dumps(told, indent=1) + "\n")
    write(out.with_suffix(".html"), drawn(told, found))
    print(f"{out.with_suffix('.json')} and {out.with_suffix('.html')} hold the report")
  return int(not told["ok"])


def report(found: Sequence[Summary], budget: float) -> dict[str, Any]:
  """Returns the whole report as JSON-able data.

  Args:
    found: of each source.
    budget: share of the records of all sources that may be bad.
  """
  good = sum(each.good for each in found)
  bad = sum(len(each.tally) for each in found)
  return {
    "ok": good > 0 and bad <= budget * (good + bad),
    "records": good + bad,
    "good": good,
    "bad": bad,
    "budget": budget,
    "sources": [
      {
        **figures(each),
        "first_bad": [fault._asdict() for fault in each.tally.first],
        "positions_histogram": survey.histogram(each.positions),
      }
      for each in found
    ],
  }


def verdict(told: Mapping[str, Any]) -> str:
  """Returns whether the data is good, in a sentence."""
  if not told["good"]:
    return "bad: there is no usable record"
  share = told["bad"] / told["records"]
  return (
    f"{'good' if told['ok'] else 'bad'}: {told['bad']:,} of {told['records']:,} records are "
    f"unusable ({share:.4%}), the budget is {told['budget']:.4%}"
  )


def named(fault: Fault) -> str:
  """Returns a bad record in one line, whatever characters it holds."""
  text = f"{fault.place}: {fault.reason}: {fault.detail}"
  return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def drawn(told: Mapping[str, Any], found: Sequence[Summary]) -> str:
  """Returns the report as one HTML document."""
  kind = "" if told["ok"] else " bad"
  body = [
    "<h1>Data</h1>",
    f'<div class="card verdict{kind}"><p>{html.escape(verdict(told))}</p></div>',
    page.section("Sources", "Bad records by reason below each source.", _table(told)),
  ]
  for source, each in zip(told["sources"], found, strict=True):
    body += _source(source, each)
  return page.page("Data", body)


def _table(told: Mapping[str, Any]) -> str:
  """Returns the table of sources."""

  def rows() -> Iterator[tuple[str, ...]]:
    """Yields the row of each source and a row for each reason."""
    for source in told["sources"]:
      bad = sum(source["bad"].values())
      name = html.escape(source["records"])
      yield name, f"{source['good']:,}", f"{bad:,}", f"{source['pictures']:,}"
      for reason, count in source["bad"].items():
        yield f'<span class="soft">{html.escape(reason)}</span>', "", f"{count:,}", ""

  return page.table(("source", "good", "bad", "pictures"), rows())


def _source(source: Mapping[str, Any], each: Summary) -> Iterator[str]:
  """Yields the sections of one source."""
  if source["positions_histogram"]:
    total = max(1, each.positions.total())
    bars = page.bars(
      (f"{least}–{most}", count / total, 0) for least, most, count in source["positions_histogram"]
    )
    told = " ".join(line.strip().capitalize() + "." for line in list(lines(each))[-2:])
    heading = f"Positions per record: {source['records']}"
    yield page.section(heading, told, f'<div class="card">{bars}</div>')
  if source["first_bad"]:
    items = "".join(f"<li>{html.escape(named(fault))}</li>" for fault in each.tally.first)
    yield page.section(
      f"First bad records: {source['records']}", "", f'<div class="card"><ul>{items}</ul></div>'
    )
