"""A planned conversion carried out slice by slice into a sink, a few threads at a time."""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from eagle_jax.convert import engine, rules
from eagle_jax.convert.source import Source
from eagle_jax.errors import EagleError
from eagle_jax.types import Layout

THREADS = 2
"""Tensors on their way at once: while one is hashed the other is written."""


class Sink(Protocol):
  """What takes slices in any order, from any thread, and remembers what it has."""

  def has(self, path: str, index: Sequence[int]) -> bool:
    """Whether a slice is there already."""

  def put(self, path: str, index: Sequence[int], array: np.ndarray) -> None:
    """Takes a slice [...]."""


def layouts_of(plan: engine.Plan, dtype: engine.Dtype = None) -> dict[str, Layout]:
  """Returns how each parameter of a plan is best laid down, as '/'-joined path → layout.

  Args:
    plan: from `engine.plan`.
    dtype: of the parameters; None keeps what the source has.

  Raises:
    EagleError: if slices of one parameter have several dtypes and none is chosen.
  """
  moves: dict[str, list[engine.Move]] = collections.defaultdict(list)
  for move in plan.moves:
    moves[move.place.path].append(move)
  found = {}
  for path, leaf in plan.leaves.items():
    given = {move.entry.dtype for move in moves[path]}
    if dtype is None and len(given) > 1:
      named = ", ".join(sorted(str(one) for one in given))
      raise EagleError(f"{path} has slices of several dtypes, {named}; choose one with --dtype")
    kept = given.pop() if dtype is None else engine.chosen(dtype, path, leaf)
    # Transposing costs more than copying: a transposed matrix is stored as it came.
    turned = all(move.transform is rules.linear for move in moves[path])
    depth = len(moves[path][0].place.index)
    found[path] = Layout(tuple(leaf.shape), kept, depth, "F" if turned else "C")
  return found


def identity(
  plan: engine.Plan, source: Source, found: Mapping[str, Layout], *, stamp: str = ""
) -> str:
  """Returns a SHA-256 of all that decides what a conversion writes, short of the bytes read.

  Args:
    plan: what is done.
    source: what is read.
    found: from `layouts_of`.
    stamp: stands for the bytes, such as sizes and times of the source's files.
  """
  told = [
    source.description,
    stamp,
    [(m.name, str(m.entry), str(m.place), m.transform.name) for m in plan.moves],
    sorted((path, str(layout)) for path, layout in found.items()),
  ]
  return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def run(
  plan: engine.Plan,
  source: Source,
  sink: Sink,
  *,
  layouts: Mapping[str, Layout],
  on_done: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
  """Reads every tensor of a plan and puts its slice into the sink, unless it is there.

  Args:
    plan: what to do.
    source: what the plan was made for.
    sink: takes slices; those of earlier, interrupted runs are not read again.
    layouts: from `layouts_of`; the dtypes that slices are cast to.
    on_done: called after each tensor with how many are done, and of how many.

  Returns:
    The carried tensors by source name.

  Raises:
    EagleError: if a tensor is not what the source announced, or the sink refuses one.
  """
  todo = [move for move in plan.moves if not sink.has(move.place.path, move.place.index)]

  def one(move: engine.Move) -> None:
    """Moves one tensor."""
    array = move.transform.forward(engine.read(source, move.name, move.entry))
    cast = array.astype(layouts[move.place.path].dtype, copy=False)
    sink.put(move.place.path, move.place.index, cast)

  with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
    futures = [pool.submit(one, move) for move in todo]
    before = len(plan.moves) - len(todo)
    try:
      for done, future in enumerate(concurrent.futures.as_completed(futures), before + 1):
        future.result()
        on_done(done, len(plan.moves))
    finally:
      pool.shutdown(wait=True, cancel_futures=True)
  announced = source.entries()
  return {name: np.array(engine.read(source, name, announced[name])) for name in plan.carried}
