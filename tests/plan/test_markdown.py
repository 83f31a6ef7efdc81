"""The tables as Markdown."""

import json

import pytest

from eagle_jax.errors import EagleError
from eagle_jax.plan import columns, ledger, markdown
from eagle_jax.plan.cells import Cell
from tests.plan import cases

DONE, FAILED, UNKNOWN = (Cell(f"debug:{stage}", "v5e-4") for stage in ("finetune", "pretrain", "x"))


def entry(cell, **fields):
  known = {
    "name": cell.name,
    "key": "k",
    "experiment": json.loads(cases.experiment().to_json()),
    "versions": {"jax": "0.10", "libtpu": ""},
    "outcome": ledger.FITS,
    "reason": "",
    "seconds": 1.0,
    "facts": cases.facts(),
  }
  return ledger.Entry(**{**known, **fields})


def test_every_cell_that_was_tried_has_a_row_in_both_tables():
  broken = entry(FAILED, outcome=ledger.FAILED, reason="a\nthe compiler | died\n", facts=None)
  rows = [(DONE, entry(DONE)), (FAILED, broken), (UNKNOWN, None)]
  text = markdown.tables(rows, stale={DONE})
  lines = text.splitlines()
  assert lines[0].startswith("1 of 3 cells compiled")
  of_cell = {cell: [x for x in lines if x.startswith(f"| {cell.recipe}")] for cell, _ in rows}
  assert [len(found) for found in of_cell.values()] == [2, 2, 0]
  assert of_cell[DONE][0].startswith(r"| debug:finetune\* | v5e-4 | fsdp 4 | 0.93 |")
  assert of_cell[FAILED][0].count("|") == of_cell[DONE][0].count("|") == len(columns.MEMORY) + 3
  assert of_cell[FAILED][0].split("|")[3] == " failed "
  assert markdown.tables([(UNKNOWN, None)]) == "0 of 1 cells compiled; `--list` names the others."
  assert "- debug:pretrain@v5e-4, failed: the compiler | died" in lines
  assert "- Compiled with jax 0.10." in lines
  assert lines[-1].startswith(r"\* Compiled from an earlier state")


def test_the_page_keeps_what_stands_around_the_marks(tmp_path):
  page = tmp_path / "page.md"
  page.write_text(f"before\n{markdown.BEGIN}\nold\n{markdown.END}\nafter\n")
  markdown.insert(page, "new")
  markdown.insert(page, "newer")
  assert page.read_text() == f"before\n{markdown.BEGIN}\nnewer\n{markdown.END}\nafter\n"


def test_a_page_without_marks_is_refused(tmp_path):
  page = tmp_path / "page.md"
  page.write_text(markdown.END + markdown.BEGIN)
  with pytest.raises(EagleError, match="plans: begin"):
    markdown.insert(page, "new")
