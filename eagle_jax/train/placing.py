"""Brings the batches of the stream onto the devices; there pictures on canvases become square."""

from __future__ import annotations

import dataclasses
import functools
import typing

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eagle_jax.data.batch import OnCanvas
from eagle_jax.nn import pil_resize
from eagle_jax.sharding.mesh import batch_sharding, place_batch

if typing.TYPE_CHECKING:
  from jaxtyping import Array, UInt8

  from eagle_jax.data.batch import HostBatch
  from eagle_jax.data.canvas import Canvas
  from eagle_jax.types import Batch

_ROWS, _COPIES = "rows", "copies"


class Placer:
  """Places batches; a canvas compiles a small program of its own, once for each of its shapes.

  The canvases of a process are as large as its own pictures need. So each process makes its
  pictures square on its own devices, in a program that no other takes part in, and only the
  squares, which are of one size everywhere, become an array of all processes.
  """

  def __init__(self, mesh: Mesh):
    """Places nothing yet."""
    self._mesh = mesh
    self._here = _local_mesh(mesh)
    self._squares = jax.jit(functools.partial(_squares, self._here), static_argnums=1)

  def __call__(self, made: HostBatch) -> Batch:
    """Turns this process's rows [b, ...] into global arrays [B, ...] on the mesh.

    Raises:
      EagleError: if the rows, or the groups of rows that share image slots, cannot be dealt
        out evenly over data and fsdp.
    """
    if not isinstance(made, OnCanvas):
      return place_batch(made, self._mesh)
    placed = place_batch(made.batch, self._mesh)
    slots = len(made.canvas.pixels) // len(made.batch.images)
    canvas = jax.device_put(made.canvas, NamedSharding(self._here, PartitionSpec(_ROWS)))
    squares = self._squares(canvas, slots)  # of this process
    groups, _, *rest = placed.images.shape
    images = jax.make_array_from_single_device_arrays(
      (groups, slots, *rest),
      batch_sharding(self._mesh),
      [shard.data for shard in squares.addressable_shards],
    )
    return dataclasses.replace(placed, images=images)


def _local_mesh(mesh: Mesh) -> Mesh:
  """Returns this process's devices, those that hold other rows along one axis, in row order."""
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  rows = batch_sharding(mesh).devices_indices_map((shards,))
  held: dict[int, list[jax.Device]] = {}
  for device in mesh.local_devices:
    held.setdefault(rows[device][0].start or 0, []).append(device)
  devices = np.array([held[start] for start in sorted(held)])
  return Mesh(devices, (_ROWS, _COPIES), axis_types=(AxisType.Auto,) * 2)


def _squares(here: Mesh, canvas: Canvas, slots: int) -> UInt8[Array, "R I side side 3"]:
  """Makes pictures [R·I, ...] square, each device those of its rows."""

  def those(canvas: Canvas) -> UInt8[Array, "r I side side 3"]:
    """Makes the pictures of one device square."""
    made = pil_resize.resize(canvas)
    return made.reshape(-1, slots, *made.shape[1:])

  spec = PartitionSpec(_ROWS)
  return jax.shard_map(those, mesh=here, in_specs=spec, out_specs=spec)(canvas)
