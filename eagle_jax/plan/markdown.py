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
  """Returns both tables, of the cells something is known of, what did not work, and what compiled.

  Args:
    rows: cells in order, with what is known of each.
    stale: cells whose program may have changed since; they are marked.
  """
  known = [(cell, entry) for cell, entry in rows if entry is not None]
  done = [entry for _, entry in known]
  answered = sum(entry.answered for entry in done)
  parts = [f"{answered} of {len(rows)} cells compiled; `--list` names the others."]
  if known:
    parts += [
      "GiB per device:",
      _table(known, columns.MEMORY, stale),
      "Operations, exchanges and times of a step:",
      _table(known, columns.WORK, stale),
      "\n".join(_notes(done)),
    ]
  if any(cell in stale for cell, _ in known):
    parts.append("\\* Compiled from an earlier state of the source.")
  return "\n\n".join(part for part in parts if part)


def _table(
  rows: Sequence[tuple[Cell, ledger.Entry]],
  shown: Sequence[columns.Column],
  stale: Collection[Cell],
) -> str:
  """Renders one table."""
  names = ["Recipe", "Slice", *(name for name, _ in shown)]
  lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
  for cell, entry in rows:
    mark = "\\*" if cell in stale else ""
    values = [cell.recipe + mark, cell.slice, *_values(cell, entry, shown)]
    lines.append("| " + " | ".join(values) + " |")
  return "\n".join(lines)


def _values(cell: Cell, entry: ledger.Entry, shown: Sequence[columns.Column]) -> list[str]:
  """Returns what stands in the columns of a cell; dashes where it has no program."""
  if entry.facts is None:
    return [entry.outcome, *[columns.NONE] * (len(shown) - 1)]
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
