"""What an exchange carries, told by its shape: a parameter's, or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from eagle_jax.plan.collectives import Collective

LEAST = 2**20
"""Bytes sent at a time, below which an exchange is of no concern: norms, biases, counts."""

Sides = tuple[int, ...]


def parameter_shapes(shapes: Iterable[Sides], tensor: int) -> frozenset[Sides]:
  """Returns the sides, sorted, that parameters have which `fsdp` does not divide.

  Whole stacks, one layer of a stack, and shares of both along `tensor`; sides of 1 left out.
  A kernel for queries, keys and values may come in three.

  Args:
    shapes: of the parameters.
    tensor: devices along that axis.
  """
  found: set[Sides] = set()
  for shape in shapes:
    for skipped in range(max(1, len(shape) - 1)):  # leading axes are those of a stack
      rest = shape[skipped:]
      found.add(_plain(rest))
      for n, side in enumerate(rest):
        others = (*rest[:n], *rest[n + 1 :])
        if side % tensor == 0:
          found.add(_plain((*others, side // tensor)))
        if side % 3 == 0:  # queries, keys and values, cut in three
          found.add(_plain((*others, 3, side // 3)))
  return frozenset(found)


def of_parameter(one: Collective, known: frozenset[Sides]) -> bool:
  """Whether an exchange has the shape of a parameter; `known` is from `parameter_shapes`."""
  return _plain(tuple(map(int, re.findall(r"\d+", one.shape.partition("[")[2])))) in known


def _plain(shape: Sides) -> Sides:
  """Sides above 1 in order of size: compilers turn and flatten arrays [1, D, D] at will."""
  return tuple(sorted(side for side in shape if side > 1))


def needless(
  sent: Iterable[Collective], mesh: Mapping[str, int]
) -> Iterator[tuple[str, Collective]]:
  """Yields what should not be sent along `fsdp`, with its name, the largest first.

  Gathers of what is no parameter, and sums of a whole parameter's gradient where a scatter
  of it would do.

  Args:
    sent: by a program.
    mesh: axis → devices.
  """
  for one in sorted(sent, key=lambda one: -one.total):
    if one.sent < LEAST or "fsdp" not in one.axes or mesh["fsdp"] == 1:
      continue
    if one.kind == "all-gather" and not one.parameter:
      yield "gather of activations", one
    if one.kind == "all-reduce" and one.parameter:
      yield "sum of a whole parameter", one


def hidden_share(sent: Iterable[Collective]) -> float | None:
  """Returns the share of the bytes gathered of parameters in loops that products hide.

  None where no loop gathers a parameter.
  """
  gathers = [one for one in sent if one.kind == "all-gather" and one.looped and one.parameter]
  total = sum(one.total for one in gathers)
  return sum(one.total for one in gathers if one.asynchronous) / total if total else None
