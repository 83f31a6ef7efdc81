"""The tables of plans as Markdown, written between two marks of a page."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Iterator, Sequence

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.plan import columns, ledger
from eagle_jax.plan.cells import Cell

BEGIN, END = "<!-- plans: begin -->", "<!-- plans: end -->"

Row = tuple[Cell, ledger.Entry | None]


def insert(page: pathlib.Path, text: str) -> None:
  """Replaces what stands between the two marks of a page.

  Raises:
    EagleError: if the page lacks them.
  """
  before, begin, rest = page.read_text().partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    raise EagleError(f"{str(page)!r} must hold the lines {BEGIN} and {END}, in this order")
  page.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}")


def tables(rows: Sequence[Row], *, stale: Collection[Cell] = ()) -> str:
  """Returns both tables, what did not work, and what compiled them.

  Args:
    rows: cells in order, with what is known of each.
    stale: cells whose program may have changed since; they are marked.
  """
  done = [entry for _, entry in rows if entry is not None]
  answered = sum(entry.answered for entry in done)
  parts = [
    f"{answered} of {len(rows)} cells compiled. GiB per device:",
    _table(rows, columns.MEMORY, stale),
    "Operations, exchanges and times of a step:",
    _table(rows, columns.WORK, stale),
    "\n".join(_notes(done)),
  ]
  if any(entry and cell in stale for cell, entry in rows):
    parts.append("\\* Compiled from an earlier state of the source.")
  return "\n\n".join(part for part in parts if part)


def _table(rows: Sequence[Row], shown: Sequence[columns.Column], stale: Collection[Cell]) -> str:
  """Renders one table; cells that nothing is known of are dashes."""
  names = ["Recipe", "Slice", *(name for name, _ in shown)]
  lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
  for cell, entry in rows:
    mark = "\\*" if entry and cell in stale else ""
    values = [cell.recipe + mark, cell.slice, *_values(cell, entry, shown)]
    lines.append("| " + " | ".join(values) + " |")
  return "\n".join(lines)


def _values(cell: Cell, entry: ledger.Entry | None, shown: Sequence[columns.Column]) -> list[str]:
  """Returns what stands in the columns of a cell."""
  if entry is None or entry.facts is None:
    rest = [columns.NONE] * (len(shown) - 1)
    return [entry.outcome if entry else columns.NONE, *rest]
  experiment = config.from_mapping(entry.experiment)
  planned = columns.Planned.of(cell.slice, experiment, entry.facts)
  return [show(planned) for _, show in shown]


def _notes(done: Sequence[ledger.Entry]) -> Iterator[str]:
  """Yields a line per cell that has no program, and one per set of versions."""
  for entry in done:
    lines = [line.strip() for line in entry.reason.splitlines() if line.strip()]
    if lines:
      yield f"- {entry.name}, {entry.outcome}: {lines[-1]}"
  for said in sorted({" ".join(f"{n} {v}" for n, v in e.versions.items() if v) for e in done}):
    yield f"- Compiled with {said}."
