"""Per-parameter facts: ordered lists of (path pattern, value), first match wins.

Weight decay, freezing, learning rates and sharding all speak this language. A
path is the '/'-joined name of a parameter, as in 'vision/clip/blocks/mlp/fc1/kernel';
a pattern is a regular expression that must match the whole path.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from eagle_jax.errors import EagleError

Value = TypeVar("Value")
Rules = Sequence[tuple[str, Value]]


def assign(rules: Rules[Value], paths: Iterable[str], *, what: str) -> dict[str, Value]:
  """Returns the value of the first matching rule for every path.

  Args:
    rules: ordered (pattern, value) pairs.
    paths: '/'-joined parameter paths.
    what: what is being assigned, for the message, such as 'sharding'.

  Raises:
    EagleError: if any path is matched by no rule; all of them are named.
  """
  compiled = [(re.compile(pattern), value) for pattern, value in rules]
  found: dict[str, Value] = {}
  uncovered = []
  for path in paths:
    for pattern, value in compiled:
      if pattern.fullmatch(path):
        found[path] = value
        break
    else:
      uncovered.append(path)
  if uncovered:
    raise EagleError(
      f"{what}: every parameter must match a rule, {len(uncovered)} match none: "
      + ", ".join(uncovered)
    )
  return found
