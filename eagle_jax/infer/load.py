"""A trained checkpoint as the parameters that answering takes."""

from __future__ import annotations

import typing
from typing import Any

import jax
from flax import traverse_util

from eagle_jax import checkpoint
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding import rules


def params(folder: str, eagle: eagle_lib.Eagle, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Returns the parameters of a checkpoint as a nested dict, in the model's dtype.

  Args:
    folder: a checkpoint or a run's folder.
    eagle: the model, which names paths and shapes.
    mesh: the devices that the parameters are spread over.

  Raises:
    EagleError: naming every parameter the checkpoint lacks.
  """
  leaves = traverse_util.flatten_dict(dict(eagle_lib.abstract_params(eagle)), sep="/")
  placed = rules.shardings({path: leaf.shape for path, leaf in leaves.items()}, mesh)
  wanted = {
    path: jax.ShapeDtypeStruct(leaf.shape, eagle.dtype, sharding=placed[path])
    for path, leaf in leaves.items()
  }
  loaded = checkpoint.load_params(folder, wanted)
  return typing.cast("dict[str, Any]", traverse_util.unflatten_dict(loaded, sep="/"))
