"""Builds the device mesh of an experiment and places batches on it."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
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
  data, *rest = shape
  if data % slices:
    raise EagleError(f"mesh.data must be a multiple of the slices: {data} and {slices} slices")
  # An axis of 2 or 32 takes part of a side of a torus of 4 x 4 x 4.
  if slices == 1:
    grid = create_device_mesh(shape, devices, allow_split_physical_axes=True)
  else:
    grid = create_hybrid_device_mesh(
      (data // slices, *rest), (slices, 1, 1, 1), devices, allow_split_physical_axes=True
    )
  return jax.sharding.Mesh(grid, AXES, axis_types=kinds)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the sharding of every array of a batch: its leading axis over data and fsdp."""
  return NamedSharding(mesh, BATCH_SPEC)


def readers(mesh: jax.sharding.Mesh) -> tuple[int, int]:
  """Returns which share of the rows of a batch this process reads, and how many shares there are.

  Where `tensor` or `sequence` goes beyond the devices of a process, several hold the same rows:
  they read the same share, and there are fewer shares than processes.

  Raises:
    EagleError: if processes have some of their rows in common, and not all.
  """
  rows = mesh.devices.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)  # [shards, copies]
  held: dict[int, set[int]] = {}
  for shard, devices in enumerate(rows):
    for device in devices:
      held.setdefault(device.process_index, set()).add(shard)
  shares = sorted({tuple(sorted(shards)) for shards in held.values()})
  if len(rows) != sum(map(len, shares)) or len(set(map(len, shares))) > 1:
    axes = ", ".join(f"{axis}={side}" for axis, side in mesh.shape.items())
    raise EagleError(
      "processes must hold the same rows of a batch, or none in common; this mesh gives them "
      f"the shares {', '.join(str(list(share)) for share in shares)} of {len(rows)}: {axes}"
    )
  return shares.index(tuple(sorted(held[jax.process_index()]))), len(shares)


def place_batch(batch: Batch, mesh: jax.sharding.Mesh) -> Batch:
  """Turns this process's rows [b, ...] into global arrays [B, ...] on the mesh.

  Args:
    batch: the rows of the share that `readers` names.
    mesh: the devices.

  Raises:
    EagleError: if the rows, or the groups of rows that share image slots, cannot be dealt
      out evenly over data and fsdp.
  """
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  _, count = readers(mesh)
  rows = batch.tokens.shape[0] * count
  if rows % shards:
    raise EagleError(
      f"batch_size must be a multiple of the data and fsdp axes: {rows} rows, {shards} shards"
    )
  groups = batch.images.shape[0] * count
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
