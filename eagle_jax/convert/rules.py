"""Weight tables: which foreign tensor becomes which parameter, as data.

A pattern holds captures such as `{n}`, each standing for a run of digits in the source
name and replaced by it in the target. Square brackets in a target give the position on
the leading axes of a stacked leaf: 'blocks[{n}]/mlp/fc1/kernel' is slice n of the leaf
'blocks/mlp/fc1/kernel'. `{slot}` in a target is looked up in the table's slots under the
captured `{n}`, for stacks whose layers alternate in kind. In `Drop` and `Carry` a `*`
matches anything. The first rule that matches wins.

Everything is invertible, so that a table serves import and export alike.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
  """A change of layout with its inverse.

  Attributes:
    name: how messages call it.
    forward: source array to parameter.
    inverse: parameter to source array.
    shape: shape of the parameter for a source shape; raises ValueError where the
      transform does not apply.
  """

  name: str
  forward: Callable[[np.ndarray], np.ndarray]
  inverse: Callable[[np.ndarray], np.ndarray]
  shape: Callable[[Shape], Shape]


def permute(name: str, axes: Shape) -> Transform:
  """Returns the transform that reorders axes as np.transpose does."""
  back = tuple(int(axis) for axis in np.argsort(axes))

  def shape(source: Shape) -> Shape:
    if len(source) != len(axes):
      raise ValueError(f"{name} takes {len(axes)} axes, the shape {list(source)} has {len(source)}")
    return tuple(source[axis] for axis in axes)

  return Transform(name, lambda a: np.transpose(a, axes), lambda a: np.transpose(a, back), shape)


def reshape(source: Shape, target: Shape) -> Transform:
  """Returns the transform between two fixed shapes of as many elements.

  Raises:
    ValueError: if the shapes differ in their number of elements.
  """
  if math.prod(source) != math.prod(target):
    raise ValueError(f"shapes {list(source)} and {list(target)} differ in elements")

  def shape(found: Shape) -> Shape:
    if found != source:
      raise ValueError(f"reshape takes the shape {list(source)}, it is {list(found)}")
    return target

  return Transform("reshape", lambda a: a.reshape(target), lambda a: a.reshape(source), shape)


def _squeezed(source: Shape) -> Shape:
  """Returns the shape [...] of a shape [1, ...]."""
  if not source or source[0] != 1:
    raise ValueError(f"squeeze takes a leading axis of length 1, the shape is {list(source)}")
  return source[1:]


def _depthwise(source: Shape) -> Shape:
  """Returns the shape [kh, kw, 1, C] of a shape [C, 1, kh, kw]."""
  if len(source) == 4 and source[1] != 1:
    raise ValueError(f"depthwise takes [C, 1, kh, kw], the shape is {list(source)}")
  return conv.shape(source)


same = Transform("same", lambda a: a, lambda a: a, lambda shape: shape)
"""Leaves the array as it is."""
linear = permute("linear", (1, 0))
"""(out, in) to (in, out)."""
conv = permute("conv", (2, 3, 1, 0))
"""(out, in, kh, kw) to (kh, kw, in, out)."""
depthwise = Transform("depthwise", conv.forward, conv.inverse, _depthwise)
"""(C, 1, kh, kw) to (kh, kw, 1, C)."""
squeeze = Transform("squeeze", lambda a: a[0], lambda a: a[None], _squeezed)
"""(1, ...) to (...)."""


@dataclasses.dataclass(frozen=True)
class Rule:
  """A source pattern, the target it fills, and the transform between them.

  Every capture of the source must stand in the target and the other way round
  (`{slot}` counts as `{n}`), else a name could not be led back.
  """

  source: str
  target: str
  transform: Transform = same
  slots: Mapping[str, str] = dataclasses.field(default_factory=dict)
  """Filled in by the table; `{n}` to what `{slot}` stands for."""

  def __post_init__(self) -> None:
    target = self.target.replace("{slot}", "{n}")
    if set(captures(self.source)) != set(captures(target)):
      raise ValueError(f"captures differ between {self.source!r} and {self.target!r}")


@dataclasses.dataclass(frozen=True)
class Drop:
  """Tensors that are known and not needed, such as tables a module computes itself."""

  pattern: str
  why: str


@dataclasses.dataclass(frozen=True)
class Carry:
  """Tensors without a parameter here, kept beside the checkpoint for the way back."""

  pattern: str
  why: str


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a source tensor goes: a leaf, and an index on its leading axes."""

  path: str
  index: Shape = ()

  def __str__(self) -> str:
    return self.path + (str(list(self.index)) if self.index else "")


@dataclasses.dataclass(frozen=True)
class Table:
  """Ordered rules, and what `{slot}` stands for under each `{n}`."""

  rules: tuple[Rule | Drop | Carry, ...]
  slots: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    bound = tuple(
      dataclasses.replace(rule, slots=self.slots)
      if isinstance(rule, Rule) and "{slot}" in rule.target and not rule.slots
      else rule
      for rule in self.rules
    )
    object.__setattr__(self, "rules", bound)

  def prefixed(self, source_prefix: str, target_prefix: str) -> "Table":
    """Returns the table with both prefixes put verbatim before all its patterns."""
    moved: list[Rule | Drop | Carry] = []
    for rule in self.rules:
      if isinstance(rule, Rule):
        source, target = source_prefix + rule.source, target_prefix + rule.target
        moved.append(dataclasses.replace(rule, source=source, target=target))
      else:
        moved.append(dataclasses.replace(rule, pattern=source_prefix + rule.pattern))
    return Table(tuple(moved), self.slots)

  def match(self, name: str) -> tuple[Rule | Drop | Carry, dict[str, str]] | None:
    """Returns the first rule for a source name and its captures, or None."""
    for rule in self.rules:
      found = compiled(rule.source if isinstance(rule, Rule) else rule.pattern).fullmatch(name)
      if found:
        return rule, found.groupdict()
    return None


def merge(*tables: Table) -> Table:
  """Returns one table with the rules of all, in order; each keeps its own slots."""
  return Table(tuple(rule for table in tables for rule in table.rules))


def captures(pattern: str) -> list[str]:
  """Returns the names in curly brackets, in order, repeated where they are repeated."""
  return re.findall(r"\{(\w+)\}", pattern)


def substitute(pattern: str, values: Mapping[str, str]) -> str:
  """Returns the pattern with each capture replaced by its value.

  Raises:
    KeyError: for a capture without a value.
  """
  return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], pattern)


def place(rule: Rule, values: Mapping[str, str]) -> Place:
  """Returns where the rule puts the tensor with these captures.

  Raises:
    KeyError: if the rule's slots do not know the captured `{n}`.
  """
  target = rule.target
  if "{slot}" in target:
    target = target.replace("{slot}", rule.slots[values["n"]])
  path, index = split(substitute(target, values))
  return Place(path, tuple(int(entry) for entry in index))


def split(target: str) -> tuple[str, list[str]]:
  """Returns a target without its square brackets, and what stood in them."""
  index = re.findall(r"\[([^\]]*)\]", target)
  entries = [entry.strip() for part in index for entry in part.split(",")]
  return re.sub(r"\[[^\]]*\]", "", target), entries


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
  """Returns the regular expression of a pattern, one group per capture."""
  seen: set[str] = set()
  out = []
  for part in re.split(r"(\{\w+\}|\*)", pattern):
    if part == "*":
      out.append(".*")
    elif part.startswith("{"):
      name = part[1:-1]
      out.append(f"(?P={name})" if name in seen else rf"(?P<{name}>\d+)")
      seen.add(name)
    else:
      out.append(re.escape(part))
  return re.compile("".join(out))
