"""`eagle-jax plan table`: every stage of every recipe on every slice, cell by cell, resumable.

eagle-jax plan table --out=plans --cells='*finetune@v5e-256' --write=docs/pods.md
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.parser import Parser, existing, positive

LIMIT = 3600
"""Seconds that a cell may take."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the action; returns the exit code: 0 where every chosen cell fits, 3 where one does not.

  Interrupted, it loses the cell in hand.
  """
  options, _ = _parser(summary).read(arguments)
  page = pathlib.Path(existing(options.write, what="page")) if options.write else None

  from eagle_jax.plan import cells, ledger, markdown, process, slices

  folder = pathlib.Path(options.out)
  chosen = cells.select(options.cells)
  source = ledger.source_digest()
  recipes = {name: cli_config.load(name).experiment for name in {c.recipe for c in cells.CELLS}}
  experiments, keys = {}, {}
  for cell in cells.CELLS:
    wanted = slices.parse(cell.slice)
    experiment = cells.placed(recipes[cell.recipe], wanted)
    experiments[cell], keys[cell] = experiment, ledger.key(experiment, wanted, source)
  if options.list:
    for cell in chosen:
      found = ledger.read(folder, cell)
      late = found is not None and found.key != keys[cell]
      print(f"{cell.name:<48} {found.outcome if found else '-'}{' (earlier source)' * late}")
    return 0
  if not options.show:
    process.demand_libtpu()
  for number, cell in enumerate(chosen, 1):
    if options.show or not ledger.due(ledger.read(folder, cell), keys[cell], retry=options.retry):
      continue
    print(f"[{number}/{len(chosen)}] {cell.name} …", end=" ", flush=True)
    made = ledger.compute(folder, cell, experiments[cell], key=keys[cell], limit=options.limit)
    print(f"{made.outcome}, {made.seconds:.0f} s", flush=True)
  rows = [(cell, ledger.read(folder, cell)) for cell in cells.CELLS]
  stale = {cell for cell, entry in rows if entry and entry.key != keys[cell]}
  if page:
    markdown.insert(page, markdown.tables(rows, stale=stale))
  if options.show:
    print(markdown.tables([row for row in rows if row[0] in chosen], stale=stale))
  known = dict(rows)
  return 0 if all((e := known[cell]) and e.outcome == ledger.FITS for cell in chosen) else 3


def _parser(summary: str) -> Parser:
  """The flags."""
  parser = Parser("plan table", summary)
  parser.add_argument("--out", default="plans", metavar="FOLDER", help="one file per cell; plans")
  parser.add_argument(
    "--cells", default="*", metavar="PATTERN", help="of RECIPE:STAGE@SLICE, several by spaces"
  )
  parser.add_argument("--retry", action="store_true", help="failed cells, too")
  parser.add_argument(
    "--limit", type=positive, default=LIMIT, metavar="SECONDS", help=f"per cell; {LIMIT}"
  )
  parser.add_argument("--write", metavar="PAGE", help="write the tables between the page's marks")
  parser.add_argument("--show", action="store_true", help="compile nothing, print the tables")
  parser.add_argument("--list", action="store_true", help="compile nothing, list the cells")
  return parser
