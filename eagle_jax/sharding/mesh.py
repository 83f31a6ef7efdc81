"""Builds the device mesh of an experiment and places batches on it."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.sharding import axes
from eagle_jax.sharding.axes import AXES

if typing.TYPE_CHECKING:
  from eagle_jax.types import Batch

BATCH_SPEC = PartitionSpec(("data", "fsdp"))
"""Rows of a batch go over both axes; every other axis of the batch is whole."""


def make_mesh(sizes: config.Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """Returns a mesh with the axes of `AXES`, all of type Auto.

  Slices, which a slower network joins, follow each other along `data`.

  Args:
    sizes: devices per axis; -1 takes what the others leave.
    devices: devices to use, all of them by default.

  Raises:
    EagleError: if the product of the axes is not the device count, or `data` is no multiple
      of the slices.
  """
  devices = jax.devices() if devices is None else list(devices)
  shape = tuple(axes.sizes(sizes, len(devices)).values())
  kinds = (AxisType.Auto,) * len(AXES)
  slices = len({getattr(device, "slice_index", None) for device in devices})
  if slices == 1:
    return jax.make_mesh(shape, AXES, axis_types=kinds, devices=devices)
  data, *rest = shape
  if data % slices:
    raise EagleError(f"mesh.data must be a multiple of the slices: {data} and {slices} slices")
  grid = create_hybrid_device_mesh((data // slices, *rest), (slices, 1, 1, 1), devices)
  return jax.sharding.Mesh(grid, AXES, axis_types=kinds)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the sharding of every array of a batch: its leading axis over data and fsdp."""
  return NamedSharding(mesh, BATCH_SPEC)


def place_batch(batch: Batch, mesh: jax.sharding.Mesh) -> Batch:
  """Turns this process's rows [b, ...] into global arrays [B, ...] on the mesh.

  Raises:
    EagleError: if the rows, or the groups of rows that share image slots, cannot be dealt
      out evenly over data and fsdp.
  """
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  rows = batch.tokens.shape[0] * jax.process_count()
  if rows % shards:
    raise EagleError(
      f"batch_size must be a multiple of the data and fsdp axes: {rows} rows, {shards} shards"
    )
  groups = batch.images.shape[0] * jax.process_count()
  if groups % shards:
    raise EagleError(
      "the groups of rows that share image slots must be a multiple of the data and fsdp "
      f"axes: {groups} groups, {shards} shards"
    )
  sharding = batch_sharding(mesh)

  def put(rows_here: Any) -> jax.Array:
    """Places one array of the batch."""
    return jax.make_array_from_process_local_data(sharding, np.asarray(rows_here))

  return jax.tree.map(put, batch)
