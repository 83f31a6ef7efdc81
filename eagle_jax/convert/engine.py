"""Foreign tensors into parameters and back, strictly: plan, then fill, slice by slice.

`plan` looks at names and shapes only and raises one error with everything that is
wrong, before any byte is read. `fill` then writes every target exactly once. `export`
leads parameters back to the names and layouts they came from.
"""

import collections
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from eagle_jax.convert import rules
from eagle_jax.convert.rules import Carry, Drop, Place, Rule, Shape, Table, Transform
from eagle_jax.convert.source import Entry, Source
from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

MAX_NEAREST = 40
"""Breaches of a message that get a nearest name; comparing thousands takes minutes."""

Dtype = Callable[[str], DTypeLike] | DTypeLike | None
"""The dtype of a path, of every path, or as the abstract parameters say."""


class Leaf(Protocol):
  """An abstract parameter: what has a shape and a dtype."""

  @property
  def shape(self) -> Shape:
    """Lengths of its axes."""

  @property
  def dtype(self) -> np.dtype:
    """Type of its elements."""


@dataclasses.dataclass(frozen=True)
class Move:
  """One source tensor on its way: name, what it is there, where it goes and how."""

  name: str
  entry: Entry
  place: Place
  transform: Transform


@dataclasses.dataclass(frozen=True)
class _Breach:
  """What is wrong, and among which names the one asked for may have been meant."""

  text: str
  name: str = ""
  known: Iterable[str] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
  """Everything a conversion will do.

  Attributes:
    moves: one per parameter or slice of a stacked one.
    carried: source tensors kept beside the parameters for the way back.
    dropped: source tensors left behind, with the reason.
    leaves: '/'-joined path to abstract parameter.
  """

  moves: tuple[Move, ...]
  carried: tuple[str, ...]
  dropped: Mapping[str, str]
  leaves: Mapping[str, Leaf]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns the leaves of a nested dictionary under their '/'-joined paths, in order."""
  leaves: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      leaves |= flatten(value, f"{prefix}{name}/")
    else:
      leaves[prefix + name] = value
  return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the nested dictionary of '/'-joined paths."""
  tree: dict[str, Any] = {}
  for path, value in leaves.items():
    *parents, last = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = value
  return tree


def plan(source: Source, table: Table, abstract: Mapping[str, Any]) -> Plan:
  """Decides where every source tensor goes, from names and shapes alone.

  Args:
    source: the foreign tensors.
    table: rules from their names to paths.
    abstract: nested dictionary of abstract parameters, such as jax.ShapeDtypeStruct.

  Raises:
    EagleError: naming every breach: a source tensor no rule knows; a target that does
      not exist, is filled twice or not at all; a shape that does not fit.
  """
  leaves = flatten(abstract)
  moves: list[Move] = []
  carried: list[str] = []
  dropped: dict[str, str] = {}
  breaches: list[_Breach] = []
  expected = {place: name for name, place, _ in expected_names(table, leaves)}
  for name, entry in source.entries().items():
    found = table.match(name)
    if found is None:
      text = f"source tensor {name!r} is known to no rule"
      breaches.append(_Breach(text, name, expected.values()))
    elif isinstance(found[0], Drop):
      dropped[name] = found[0].why
    elif isinstance(found[0], Carry):
      carried.append(name)
    else:
      move = _move(name, entry, found[0], values=found[1], leaves=leaves)
      if isinstance(move, Move):
        moves.append(move)
      else:
        breaches.append(move)
  breaches += _unfilled(moves, leaves, expected)
  if breaches:
    raise EagleError(_message(source.description, breaches))
  return Plan(tuple(moves), tuple(carried), dropped, leaves)


def _message(description: str, breaches: Sequence[_Breach]) -> str:
  """Returns one text for all breaches of a plan."""
  lines = [b.text + nearest(b.name, b.known) for b in breaches[:MAX_NEAREST]]
  lines += [b.text for b in breaches[MAX_NEAREST:]]
  return f"{description} does not fit the model, {len(lines)} breaches:\n  " + "\n  ".join(lines)


def _move(
  name: str, entry: Entry, rule: Rule, *, values: Mapping[str, str], leaves: Mapping[str, Leaf]
) -> Move | _Breach:
  """Returns the move of a source tensor, or the breach that forbids it."""
  what = f"source tensor {name!r}"
  try:
    place = rules.place(rule, values)
  except KeyError as error:
    return _Breach(f"{what}: block {error} has no place in this model")
  if place.path not in leaves:
    return _Breach(f"{what} goes to {place.path!r}, which is no parameter", place.path, leaves)
  depth = len(place.index)
  stack, wanted = tuple(leaves[place.path].shape[:depth]), tuple(leaves[place.path].shape[depth:])
  if len(stack) < depth or any(at >= n for at, n in zip(place.index, stack, strict=True)):
    return _Breach(f"{what} goes to {place}, the stack there has shape {list(stack)}")
  try:
    given = rule.transform.shape(entry.shape)
  except ValueError as error:
    return _Breach(f"{what}: {error}")
  if given != wanted:
    made = "" if rule.transform is rules.same else f", by {rule.transform.name!r} {list(given)}"
    return _Breach(f"{what} has shape {list(entry.shape)}{made}, {place} takes {list(wanted)}")
  return Move(name, entry, place, rule.transform)


def _unfilled(
  moves: Sequence[Move], leaves: Mapping[str, Leaf], expected: Mapping[Place, str]
) -> list[_Breach]:
  """Returns a breach for every target that is filled twice, not at all, or in two ways."""
  filled: dict[str, dict[Shape, str]] = {path: {} for path in leaves}
  breaches = []
  for move in moves:
    slices = filled[move.place.path]
    if move.place.index in slices:
      first = slices[move.place.index]
      breaches.append(f"target {move.place} is filled twice, by {first!r} and {move.name!r}")
    slices[move.place.index] = move.name
  for path, slices in filled.items():
    depths = {len(index) for index in slices}
    if not slices:
      names = [name for place, name in expected.items() if place.path == path]
      told = f", a rule expects {names[0]!r}" if names else " and named in no rule"
      more = f" and {len(names) - 1} more" if len(names) > 1 else ""
      breaches.append(f"target {path} is filled by no source tensor{told}{more}")
    elif len(depths) > 1:
      breaches.append(f"target {path} is filled both whole and in slices")
    else:
      for index in np.ndindex(*leaves[path].shape[: depths.pop()]):
        if index not in slices:
          place = Place(path, index)
          told = f", a rule expects {expected[place]!r}" if place in expected else ""
          breaches.append(f"target {place} is filled by no source tensor{told}")
  return [_Breach(text) for text in breaches]


def fill(
  plan: Plan, source: Source, dtype: Dtype = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Reads every tensor of a plan and puts it in its place.

  One source tensor is in memory beside the parameters at any time.

  Args:
    plan: what to do.
    source: what the plan was made for.
    dtype: of the parameters; by default as the abstract ones say.

  Returns:
    the parameters as a nested dictionary, and the carried tensors by source name.

  Raises:
    EagleError: if a tensor that is read is not what the source announced.
  """
  arrays: dict[str, np.ndarray] = {}
  for move in plan.moves:
    path = move.place.path
    if path not in arrays:
      arrays[path] = np.empty(plan.leaves[path].shape, chosen(dtype, path, plan.leaves[path]))
    arrays[path][move.place.index] = move.transform.forward(read(source, move.name, move.entry))
  announced = source.entries()
  carried = {name: np.array(read(source, name, announced[name])) for name in plan.carried}
  return unflatten({path: arrays[path] for path in plan.leaves}), carried


def chosen(dtype: Dtype, path: str, leaf: Leaf) -> np.dtype:
  """Returns the dtype a parameter is stored in."""
  if dtype is None:
    return np.dtype(leaf.dtype)
  # A numpy scalar type such as np.float32 is itself callable, and no function of a path.
  if isinstance(dtype, (type, np.dtype, str)) or not callable(dtype):
    return np.dtype(dtype)
  return np.dtype(dtype(path))


def read(source: Source, name: str, entry: Entry) -> np.ndarray:
  """Reads one tensor and holds it against its announcement."""
  array = source.read(name)
  if Entry(tuple(array.shape), array.dtype) != entry:
    raise EagleError(
      f"{source.description}: {name!r} was announced as {entry.dtype} {list(entry.shape)}, "
      f"it is {array.dtype} {list(array.shape)}"
    )
  return array


def expected_names(
  table: Table, leaves: Mapping[str, Leaf]
) -> Iterator[tuple[str, Place, Transform]]:
  """Yields source name, place and transform for every slice of every leaf the table reaches.

  Where several rules lead to one place, the first does: it is the name of the export.
  """
  seen: set[Place] = set()
  for rule in table.rules:
    if not isinstance(rule, Rule):
      continue
    choices: list[tuple[str, dict[str, str]]] = [(rule.target, {})]
    if "{slot}" in rule.target:
      choices = [(rule.target.replace("{slot}", slot), {"n": n}) for n, slot in rule.slots.items()]
    for target, chosen in choices:
      for values in _captured(target, chosen, leaves):
        place = rules.place(rule, values)
        if place not in seen:
          seen.add(place)
          yield rules.substitute(rule.source, values), place, rule.transform


def _captured(
  target: str, chosen: Mapping[str, str], leaves: Mapping[str, Leaf]
) -> Iterator[dict[str, str]]:
  """Yields the captures with which a target, after its slot is chosen, names a slice of a leaf."""
  path, index = rules.split(target)
  for leaf in _paths(path, leaves):
    found = rules.compiled(path).fullmatch(leaf)
    lengths = leaves[leaf].shape[: len(index)]
    if not found or len(lengths) < len(index):
      continue
    for position in itertools.product(*map(range, lengths)):
      values = dict(chosen) | found.groupdict()
      if all(_agrees(entry, at, values) for entry, at in zip(index, position, strict=True)):
        yield values


def _paths(path: str, leaves: Mapping[str, Leaf]) -> list[str]:
  """Returns the leaves a path without or with captures may name."""
  if "{" not in path:
    return [path] if path in leaves else []
  return list(leaves)


def _agrees(entry: str, at: int, values: dict[str, str]) -> bool:
  """Whether a bracket entry can stand for position `at`; binds a free capture to it."""
  capture = re.fullmatch(r"\{(\w+)\}", entry)
  if capture is None:
    return entry == str(at)
  return values.setdefault(capture[1], str(at)) == str(at)


@dataclasses.dataclass(frozen=True)
class Outgoing:
  """A tensor on its way out: its name and form there, and how it is made.

  Attributes:
    name: in the foreign checkpoint.
    entry: shape and dtype there.
    make: reads the parameter's slice and turns it round, to [...] of that shape.
  """

  name: str
  entry: Entry
  make: Callable[[], np.ndarray]


def outgoing(
  made: Plan | Table,
  params: Mapping[str, Any],
  *,
  carried: Mapping[str, np.ndarray] | None = None,
) -> list[Outgoing]:
  """Returns every foreign tensor that parameters stand for; none of them is made yet.

  Args:
    made: the plan of the import, which gives names and dtypes of the source back; or a
      table, for parameters that were never imported. Where several of its rules lead to
      one place, the first does.
    params: dictionary, nested or with '/'-joined paths, of arrays [...] or of anything
      with a shape and a dtype that gives a slice when its leading axes are indexed.
    carried: foreign name → what an import kept for the way back.

  Raises:
    EagleError: if a parameter has no name in the source, or there is no such parameter.
  """
  leaves = flatten(params)
  if isinstance(made, Plan):
    moves = [(move.name, move.place, move.transform) for move in made.moves]
    dtypes = {move.name: move.entry.dtype for move in made.moves}
  else:
    moves, dtypes = list(expected_names(made, leaves)), {}
  _check_named(moves, leaves)
  found = []
  for name, place, transform in moves:
    leaf = leaves[place.path]
    # Turning round an array without memory tells its shape.
    hollow = np.broadcast_to(np.zeros((), np.bool_), leaf.shape[len(place.index) :])
    entry = Entry(transform.inverse(hollow).shape, np.dtype(dtypes.get(name, leaf.dtype)))
    make = functools.partial(_made, leaf, place.index, transform=transform, entry=entry)
    found.append(Outgoing(name, entry, make))
  for name, array in (carried or {}).items():
    found.append(
      Outgoing(name, Entry(array.shape, array.dtype), functools.partial(np.array, array))
    )
  return found


def export(
  made: Plan | Table, params: Mapping[str, Any], carried: Mapping[str, np.ndarray] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields name and array [...] of what `outgoing` returns, one at a time."""
  for tensor in outgoing(made, params, carried=carried):
    yield tensor.name, tensor.make()


def _made(leaf: Any, index: Shape, *, transform: Transform, entry: Entry) -> np.ndarray:
  """Turns a slice of a parameter into the foreign array [...]."""
  array = np.ascontiguousarray(transform.inverse(np.asarray(leaf[index])))
  return array.astype(entry.dtype, copy=False).reshape(entry.shape)


def _check_named(moves: Sequence[tuple[str, Place, Transform]], leaves: Mapping[str, Leaf]) -> None:
  """Demands that the moves lead every parameter out whole, and no other."""
  slices = collections.Counter(place.path for _, place, _ in moves)
  depths = {place.path: len(place.index) for _, place, _ in moves}
  wrong = [
    path
    for path, leaf in leaves.items()
    if slices[path] != (math.prod(leaf.shape[: depths[path]]) if path in depths else -1)
  ]
  wrong += sorted(set(slices) - set(leaves))
  if wrong:
    named = ", ".join(wrong)
    raise EagleError(f"export needs a source name for every parameter and the reverse: {named}")
