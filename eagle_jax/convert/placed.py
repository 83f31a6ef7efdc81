"""Foreign tensors straight into the devices that hold them; no process reads another's part."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from eagle_jax.convert import engine
from eagle_jax.convert.rules import Shape
from eagle_jax.convert.source import Source

if typing.TYPE_CHECKING:
  from jaxtyping import Array

Bounds = tuple[tuple[int, int], ...]
"""First position and the one behind the last, along each axis."""


def place(
  plan: engine.Plan, source: Source, wanted: Mapping[str, Any]
) -> tuple[dict[str, Array], int]:
  """Reads parameters into their shardings, each device's part by itself.

  Args:
    plan: where the source's tensors go.
    source: what the plan was made for; its arrays are mapped, so that a part can be read.
    wanted: '/'-joined path → jax.ShapeDtypeStruct [...] with its sharding, of the plan's paths.

  Returns:
    '/'-joined path → array, and the bytes this process took out of the source.

  Raises:
    EagleError: if a tensor that is read is not what the source announced.
  """
  moves: dict[str, list[engine.Move]] = {path: [] for path in wanted}
  for move in plan.moves:
    if move.place.path in moves:
      moves[move.place.path].append(move)
  arrays, taken = {}, 0
  for path, leaf in wanted.items():
    owned = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
    parts = {  # devices that hold the same part share its reading
      bounds: np.empty([stop - start for start, stop in bounds], leaf.dtype)
      for bounds in (_bounds(where, leaf.shape) for where in owned)
    }
    for move in moves[path]:
      taken += _read(move, source, parts)
    # What is on its way to a device is still in this process's memory, too.
    arrays[path] = jax.block_until_ready(_assembled(leaf, parts))
  return arrays, taken


def _assembled(leaf: Any, parts: Mapping[Bounds, np.ndarray]) -> Array:
  """Returns the array of a leaf's shape [...] whose parts lie on this process's devices."""
  return jax.make_array_from_callback(
    leaf.shape, leaf.sharding, lambda where: parts[_bounds(where, leaf.shape)]
  )


def _bounds(where: tuple[slice, ...] | None, shape: Shape) -> Bounds:
  """Returns slices of an array of this shape as numbers; without slices it is whole."""
  ends = where or (slice(None),) * len(shape)
  return tuple(s.indices(length)[:2] for s, length in zip(ends, shape, strict=True))


def _read(move: engine.Move, source: Source, parts: Mapping[Bounds, np.ndarray]) -> int:
  """Writes what a source tensor holds of parts [...] into them; returns the bytes read for it."""
  depth, taken = len(move.place.index), 0
  whole: np.ndarray | None = None
  for bounds, out in parts.items():
    ahead = list(zip(move.place.index, bounds[:depth], strict=True))
    if not all(start <= at < stop for at, (start, stop) in ahead):
      continue
    if whole is None:  # mapped, or made once for all parts, such as a quantised one
      whole = move.transform.forward(engine.read(source, move.name, move.entry))
    found = whole[tuple(slice(start, stop) for start, stop in bounds[depth:])]
    out[tuple(at - start for at, (start, _) in ahead)] = found
    taken += math.prod(found.shape) * move.entry.dtype.itemsize
  return taken
