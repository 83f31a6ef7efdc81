"""Naming schemes: the ways in which one network's tensors are called by those who publish it.

A scheme is data, as a weight table is. Most differ from the table of EAGLE's own names by a
prefix and a few words, so their tables are derived from that one (`renamed`, `prefixed`)
and never written out again.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from eagle_jax.convert import engine
from eagle_jax.convert.rules import Carry, Drop, Rule, Table, compiled
from eagle_jax.convert.source import Source
from eagle_jax.errors import EagleError

MAX_SHOWN = 3
"""Names of a file that a message quotes, to show what kind of file it is."""


@dataclasses.dataclass(frozen=True)
class Scheme:
  """One way of naming a network's tensors.

  Attributes:
    name: how commands and messages call it, such as 'eagle', 'hf' or 'timm'.
    mark: pattern of a tensor name that files of this scheme have and no others do.
    table: function from a size of the network to the weight table of that size.
    fresh: pattern of a parameter → why files of this scheme do not fill it, so that
      training draws it anew; relative to the network, in the syntax of rules.
    check: takes a size and a source whose shapes fit it; raises EagleError where the
      source says of itself that it is of another one.
    exported: whether an export writes these names; GGUF's are no safetensors' names.
  """

  name: str
  mark: str
  table: Callable[[Any], Table]
  fresh: Mapping[str, str] = dataclasses.field(default_factory=dict)
  check: Callable[[Any, Source], None] = lambda size, source: None
  exported: bool = True

  def fits(self, names: Iterable[str]) -> bool:
    """Whether the mark is among the names of a checkpoint's tensors."""
    mark = compiled(self.mark)
    return any(mark.fullmatch(name) for name in names)


def recognise(
  schemes: Sequence[Scheme], names: Iterable[str], *, place: str = "the checkpoint"
) -> Scheme:
  """Returns the one scheme whose mark is among the names.

  Args:
    schemes: those to choose from.
    names: of all tensors of a checkpoint.
    place: how the message calls the checkpoint.

  Raises:
    EagleError: if no scheme or more than one fits; lists every scheme with its mark.
  """
  held = list(names)
  found = [scheme for scheme in schemes if scheme.fits(held)]
  if len(found) == 1:
    return found[0]
  known = ", ".join(f"{scheme.name} has {scheme.mark!r}" for scheme in schemes)
  if found:
    fits = f"these {len(found)}: " + ", ".join(scheme.name for scheme in found)
  else:
    fits = none_of(held)
  raise EagleError(
    f"{place} must follow exactly one naming scheme by the tensor each is known by ({known}); "
    f"it follows {fits}"
  )


def none_of(names: Sequence[str]) -> str:
  """Returns how a message says that names follow no scheme: with the first few of them."""
  shown = ", ".join(repr(name) for name in names[:MAX_SHOWN])
  return f"none; its {len(names)} names begin with {shown}" if names else "none, it is empty"


def renamed(table: Table, words: Mapping[str, str]) -> Table:
  """Returns the table with words of its source patterns replaced, one after the other.

  Raises:
    ValueError: for a word that stands in no pattern when its turn comes.
  """
  rules = table.rules
  for old, new in words.items():
    changed = tuple(_replaced(rule, old, new) for rule in rules)
    if changed == rules:
      raise ValueError(f"no source pattern of the table holds {old!r}")
    rules = changed
  return Table(rules, table.slots)


def _replaced(rule: Rule | Drop | Carry, old: str, new: str) -> Rule | Drop | Carry:
  """Returns the rule with a word of its source pattern replaced."""
  if isinstance(rule, Rule):
    return dataclasses.replace(rule, source=rule.source.replace(old, new))
  return dataclasses.replace(rule, pattern=rule.pattern.replace(old, new))


def without_fresh(
  abstract: Mapping[str, Any], scheme: Scheme
) -> tuple[dict[str, Any], dict[str, str]]:
  """Splits off the parameters that files of a scheme do not fill.

  Args:
    abstract: nested dictionary of the network's abstract parameters, without a prefix.
    scheme: of the file.

  Returns:
    the rest as a nested dictionary, to plan with; and the '/'-joined paths that were
    taken out, each with the reason.
  """
  kept: dict[str, Any] = {}
  fresh: dict[str, str] = {}
  for path, leaf in engine.flatten(abstract).items():
    reasons = [why for pattern, why in scheme.fresh.items() if compiled(pattern).fullmatch(path)]
    if reasons:
      fresh[path] = reasons[0]
    else:
      kept[path] = leaf
  return engine.unflatten(kept), fresh
