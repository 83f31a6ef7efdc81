"""Which mesh axes each parameter is spread over, as two tables.

The first maps a parameter's path to the logical names of its last axes, the second
a logical name to mesh axes. Axes in front of the named ones are those of a layer
stack, which no device owns alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import jax
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import patterns
from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

Axes = tuple[str | None, ...]

PARAMETER_AXES: tuple[tuple[str, Axes], ...] = (
  ("language/embed/embedding", ("vocab", "width")),
  ("language/head/kernel", ("width", "vocab")),
  (r".*/(query|key|value|qkv)/kernel", ("width", "heads")),
  (r".*/attention/out/kernel", ("heads", "width")),
  (r".*/mlp/(gate|up|fc1)/kernel", ("width", "mlp")),
  (r".*/mlp/(down|fc2)/kernel", ("mlp", "width")),
  (r"projector/layer_\d+/kernel", ("width", "mlp")),
  # Spread over channels, a depthwise convolution would be computed so, and send its pictures.
  (r"vision/.*/depthwise/kernel", (None,)),
  (r"vision/.*/kernel", (None, "width")),  # patch and 1×1 convolutions
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


def logical_axes(
  shapes: Mapping[str, tuple[int, ...]], whole: Sequence[str] = ()
) -> dict[str, Axes]:
  """Returns the logical name of every axis of every parameter, None where it has none.

  Args:
    shapes: '/'-joined path → shape of every parameter of a model.
    whole: path patterns of what every device holds whole, config field `mesh.whole`.

  Raises:
    EagleError: if a path is matched by no row of `PARAMETER_AXES`, or one of `whole` matches
      no path.
  """
  _check(whole, shapes)
  rows = (*((pattern, (None,)) for pattern in whole), *PARAMETER_AXES)
  out: dict[str, Axes] = {}
  for path, axes in patterns.assign(rows, shapes, what="sharding").items():
    named = axes[-len(shapes[path]) :] if shapes[path] else ()
    out[path] = (None,) * (len(shapes[path]) - len(named)) + named
  return out


def _check(whole: Sequence[str], paths: Iterable[str]) -> None:
  """Raises if a pattern of what is held whole is none, or matches no path."""
  paths = list(paths)
  for pattern in whole:
    try:
      found = any(map(re.compile(pattern).fullmatch, paths))
    except re.error as error:
      raise EagleError(f"mesh.whole: {pattern!r} is no regular expression: {error}") from None
    if not found:
      parts = sorted({"/".join(path.split("/")[:2]) for path in paths})
      raise EagleError(
        f"mesh.whole: {pattern!r} matches the whole path of no parameter"
        f"{nearest(pattern.removesuffix('/.*'), parts) or '.'} Patterns end in '/.*'; "
        f"parts: {', '.join(parts)}"
      )


def specs(
  shapes: Mapping[str, tuple[int, ...]],
  mesh_shape: Mapping[str, int],
  whole: Sequence[str] = (),
) -> dict[str, PartitionSpec]:
  """Returns the partition of every parameter.

  A mesh axis that does not divide a dimension leaves that dimension whole: EVA-02's
  2730 hidden channels are no multiple of most meshes.

  Args:
    shapes: '/'-joined path → shape of every parameter of a model.
    mesh_shape: mesh axis → devices along it.
    whole: as in `logical_axes`, which says what it raises.
  """
  return {
    path: PartitionSpec(
      *(_mesh_axis(name, n, mesh_shape) for name, n in zip(logical, shapes[path], strict=True))
    )
    for path, logical in logical_axes(shapes, whole).items()
  }


def _mesh_axis(name: str | None, side: int, mesh_shape: Mapping[str, int]) -> str | None:
  """The mesh axis of one dimension of `side` entries, or None where it stays whole."""
  axis = MESH_AXES.get(name) if name else None
  return axis if axis and side % mesh_shape[axis] == 0 else None


def shardings(
  shapes: Mapping[str, tuple[int, ...]], mesh: jax.sharding.Mesh, whole: Sequence[str] = ()
) -> dict[str, NamedSharding]:
  """Returns the sharding of every parameter on `mesh`; see `specs`."""
  found = specs(shapes, dict(mesh.shape), whole)
  return {path: NamedSharding(mesh, spec) for path, spec in found.items()}


def share(shape: tuple[int, ...], spec: PartitionSpec, mesh_shape: Mapping[str, int]) -> int:
  """Returns how many entries of an array [...] each device holds."""
  return math.prod(shape) // math.prod(mesh_shape[axis] for axis in spec if axis is not None)
