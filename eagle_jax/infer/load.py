"""A checkpoint, or foreign files, as the parameters that answering takes."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import jax
from flax import traverse_util

from eagle_jax import checkpoint
from eagle_jax.convert import engine, placed
from eagle_jax.convert.source import Source
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding import rules


def params(
  folder: str, eagle: eagle_lib.Eagle, mesh: jax.sharding.Mesh, *, whole: Sequence[str] = ()
) -> dict[str, Any]:
  """Returns the parameters of a checkpoint as a nested dict, in the model's dtype.

  Args:
    folder: a checkpoint or a run's folder.
    eagle: the model, which names paths and shapes.
    mesh: the devices that the parameters are spread over.
    whole: path patterns of those that each device holds whole.

  Raises:
    EagleError: naming every parameter the checkpoint lacks.
  """
  loaded = checkpoint.load_params(folder, _wanted(eagle, mesh, whole))
  return typing.cast("dict[str, Any]", traverse_util.unflatten_dict(loaded, sep="/"))


def foreign(
  plan: engine.Plan,
  source: Source,
  eagle: eagle_lib.Eagle,
  *,
  mesh: jax.sharding.Mesh,
  whole: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns the parameters that foreign files hold, like those of a checkpoint.

  Args:
    plan: where the source's tensors go, for all parameters of the model.
    source: what the plan was made for.
    eagle: the model.
    mesh: the devices; no process reads what only those of others hold.
    whole: path patterns of the parameters that each device holds whole.

  Raises:
    EagleError: if a tensor is not what the source announced.
  """
  loaded, _ = placed.place(plan, source, _wanted(eagle, mesh, whole))
  return engine.unflatten(loaded)


def _wanted(
  eagle: eagle_lib.Eagle, mesh: jax.sharding.Mesh, whole: Sequence[str]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns path → shape, the model's dtype and sharding of every parameter."""
  leaves = traverse_util.flatten_dict(dict(eagle_lib.abstract_params(eagle)), sep="/")
  shardings = rules.shardings({path: leaf.shape for path, leaf in leaves.items()}, mesh, whole)
  return {
    path: jax.ShapeDtypeStruct(leaf.shape, eagle.dtype, sharding=shardings[path])
    for path, leaf in leaves.items()
  }
