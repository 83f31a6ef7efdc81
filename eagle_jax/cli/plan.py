"""`eagle-jax plan`: what a stage needs of a slice, from the TPU's compiler, without a TPU.

eagle-jax plan --config=eagle_x5_vicuna_7b:finetune --slice=v5p-128
eagle-jax plan table --out=plans
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli import plan_table
from eagle_jax.cli.parser import Parser, positive

TABLE = "plans every recipe on every slice, cell by cell, and writes the tables"


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code: 0 where the stage fits the slice, 3 where not."""
  if arguments and arguments[0] == "table":
    return plan_table.run(arguments[1:], TABLE)
  parser = Parser("plan", f"{summary}; 'plan table': {TABLE}")
  cli_config.add_flag(parser)
  parser.add_argument(
    "--slice",
    required=True,
    metavar="NAME",
    help="such as v5e-256, v6e-256 (chips), v4-128 or v5p-128 (cores: 64 chips)",
  )
  parser.add_argument(
    "--slices", type=positive, default=1, metavar="N", help="so many of them, along mesh.data"
  )
  parser.add_argument(
    "--records", type=positive, metavar="N", help="records of an epoch; the recipe's by default"
  )
  parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")
  parser.add_argument("--program", default="", metavar="FILE", help="write the compiled text here")
  options, overrides = parser.read(arguments, overrides=True)
  experiment = cli_config.load(options.config, overrides).experiment

  from eagle_jax.plan import columns, forecast, process, report, slices
  from eagle_jax.plan.advice import advice as advise

  wanted = slices.parse(options.slice, options.slices)
  if not options.json:
    print(report.heading(experiment, wanted), flush=True)
  facts = process.measure(experiment, wanted, program=options.program)
  found = forecast.forecast(experiment, wanted, facts, records=options.records)
  advice = list(advise(experiment, wanted, facts, found=found))
  if options.json:
    whole = {
      "name": experiment.name,
      "slice": wanted.name,
      "slices": wanted.count,
      "chips": wanted.chips,
      **dataclasses.asdict(facts),
      "forecast": dataclasses.asdict(found) if found else None,
      "advice": advice,
    }
    print(json.dumps(whole))
  else:
    print("\n".join([*report.lines(wanted, facts, found), *(f"advice: {one}" for one in advice)]))
  return 0 if columns.fits(wanted, facts) else 3
