"""Which mesh axes each parameter is spread over, as two tables.

The first maps a parameter's path to the logical names of its last axes, the second
a logical name to mesh axes. Axes in front of the named ones are those of a layer
stack, which no device owns alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import patterns

Axes = tuple[str | None, ...]

PARAMETER_AXES: tuple[tuple[str, Axes], ...] = (
  ("language/embed/embedding", ("vocab", "width")),
  ("language/head/kernel", ("width", "vocab")),
  (r".*/(query|key|value|qkv)/kernel", ("width", "heads")),
  (r".*/attention/out/kernel", ("heads", "width")),
  (r".*/mlp/(gate|up|fc1)/kernel", ("width", "mlp")),
  (r".*/mlp/(down|fc2)/kernel", ("mlp", "width")),
  (r"projector/layer_\d+/kernel", ("width", "mlp")),
  (r"vision/.*/kernel", (None, "width")),  # patch, depthwise and 1×1 convolutions
  (r".*/(scale|bias|query_bias|value_bias|layer_scale)", (None,)),
  (r"vision/.*(class_embedding|position\w*|embedding|rel_pos_\w+)", (None,)),
)
"""Source: the layout of Megatron-style tensor parallelism, columns then rows."""

MESH_AXES: Mapping[str, str] = {
  "width": "fsdp",
  "vocab": "tensor",
  "heads": "tensor",
  "mlp": "tensor",
}


def logical_axes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Axes]:
  """Returns the logical name of every axis of every parameter, None where it has none.

  Args:
    shapes: '/'-joined path → shape.

  Raises:
    EagleError: if a path is matched by no row of `PARAMETER_AXES`.
  """
  out = {}
  for path, axes in patterns.assign(PARAMETER_AXES, shapes, what="sharding").items():
    named = axes[-len(shapes[path]) :] if shapes[path] else ()
    out[path] = (None,) * (len(shapes[path]) - len(named)) + named
  return out


def specs(
  shapes: Mapping[str, tuple[int, ...]], mesh_shape: Mapping[str, int]
) -> dict[str, PartitionSpec]:
  """Returns the partition of every parameter.

  A mesh axis that does not divide a dimension leaves that dimension whole: EVA-02's
  2730 hidden channels are no multiple of most meshes.

  Args:
    shapes: '/'-joined path → shape.
    mesh_shape: mesh axis → devices along it.

  Raises:
    EagleError: if a path is matched by no row of `PARAMETER_AXES`.
  """
  return {
    path: PartitionSpec(
      *(_mesh_axis(name, n, mesh_shape) for name, n in zip(logical, shapes[path], strict=True))
    )
    for path, logical in logical_axes(shapes).items()
  }


def _mesh_axis(name: str | None, side: int, mesh_shape: Mapping[str, int]) -> str | None:
  """The mesh axis of one dimension of `side` entries, or None where it stays whole."""
  axis = MESH_AXES.get(name) if name else None
  return axis if axis and side % mesh_shape[axis] == 0 else None


def shardings(
  shapes: Mapping[str, tuple[int, ...]], mesh: jax.sharding.Mesh
) -> dict[str, NamedSharding]:
  """Returns the sharding of every parameter on `mesh`; see `specs`."""
  return {path: NamedSharding(mesh, spec) for path, spec in specs(shapes, dict(mesh.shape)).items()}


def bytes_per_device(
  shapes: Mapping[str, tuple[int, ...]], mesh_shape: Mapping[str, int], itemsize: int
) -> int:
  """Returns the bytes one device holds of these parameters at `itemsize` bytes each."""
  total = 0
  for path, spec in specs(shapes, mesh_shape).items():
    shards = math.prod(mesh_shape[axis] for axis in spec if axis is not None)
    total += math.prod(shapes[path]) * itemsize // shards
  return total
