"""Looking a name up in a table, with an error that helps."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from eagle_jax.errors import EagleError

Value = TypeVar("Value")


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns `, did you mean 'x'?` for the closest known name, or an empty string."""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f", did you mean {close[0]!r}?" if close else ""


def lookup(table: Mapping[str, Value], name: str, *, what: str) -> Value:
  """Returns `table[name]`.

  Args:
    table: names and what they stand for.
    name: the name asked for.
    what: what the table lists, in the singular, for the message.

  Raises:
    EagleError: if the name is not in the table; names the nearest one and all of them.
  """
  if name in table:
    return table[name]
  raise EagleError(
    f"no {what} is called {name!r}{nearest(name, table) or '.'} Known: {', '.join(sorted(table))}."
  )
