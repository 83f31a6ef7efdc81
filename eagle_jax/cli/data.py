"""`eagle-jax data`: what is done to records before anything is trained on them.

eagle-jax data build train.json --images=images --to=shards
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

ACTIONS: Mapping[str, str] = {
  "build": "writes any source of records as shards of ArrayRecord, or as a TFDS data set",
  "validate": "reads every record and picture once and counts what is wrong by reason",
  "preview": "shows records as the model sees them: pictures, tokens and targets, as HTML",
  "stats": "counts turns, pictures and positions, and how well records pack into rows",
}
"""Each action is the module `data_NAME` in this package, imported when it is asked for."""


def usage(summary: str) -> str:
  """The text of `eagle-jax data --help`."""
  width = max(map(len, ACTIONS))
  lines = "\n".join(f"  {action:<{width}}  {what}" for action, what in ACTIONS.items())
  return f"""usage: eagle-jax data ACTION SOURCE [flags]

{summary}

{lines}

eagle-jax data ACTION --help lists the flags of an action."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the action named first; returns the exit code.

  Raises:
    EagleError: for an action that does not exist.
  """
  first = arguments[0] if arguments else "--help"
  if first in ("--help", "-h", "help"):
    print(usage(summary))
    return 0
  if first not in ACTIONS:
    raise EagleError(
      f"eagle-jax data has no action {first!r}{nearest(first, ACTIONS) or '.'} "
      f"Actions: {', '.join(ACTIONS)}."
    )
  action = importlib.import_module(f"eagle_jax.cli.data_{first}")
  code: int = action.run(arguments[1:], ACTIONS[first])
  return code
