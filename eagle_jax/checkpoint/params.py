"""Parameters in Orbax's format, alone or as a part of a training checkpoint."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from eagle_jax.checkpoint import manifest
from eagle_jax.errors import EagleError

CHECKPOINTS = "checkpoints"  # the folder of the numbered checkpoints in a run's folder
logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax narrates saves; what fails is raised


def save_params(folder: str, params: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
  """Writes a checkpoint of parameters alone.

  Args:
    folder: must not exist yet.
    params: '/'-joined path → array.
    meta: JSON-able description: where the parameters come from.

  Raises:
    EagleError: if the folder exists.
  """
  path = epath.Path(folder).resolve()
  if path.exists():
    raise EagleError(f"{folder} exists already; nothing saved is overwritten, name a new folder")
  parts = {"params": traverse_util.unflatten_dict(dict(params), sep="/")}
  ocp.save_checkpointables(path, parts, custom_metadata=dict(meta))


def resolve(folder: str) -> epath.Path:
  """Returns the folder of one checkpoint: `folder` itself, or the latest in a run's folder.

  Raises:
    EagleError: if there is no complete checkpoint.
  """
  path = epath.Path(folder).resolve()
  if (path / "params").exists():
    return path
  steps = path / CHECKPOINTS if (path / CHECKPOINTS).exists() else path
  numbered = [p for p in steps.iterdir() if p.name.isdigit()] if steps.exists() else []
  complete = [p for p in numbered if (p / "params").exists() and ocp.is_orbax_checkpoint(p)]
  if not complete:
    raise EagleError(f"{folder} holds no complete checkpoint")
  return max(complete, key=lambda p: int(p.name))


def is_checkpoint(folder: str) -> bool:
  """Whether this is the folder of a checkpoint, of a run that has one, or of all a run's."""
  path = epath.Path(folder)
  return path.is_dir() and any(
    child.name in ("params", CHECKPOINTS) or child.name.isdigit() for child in path.iterdir()
  )


def read_meta(folder: str) -> dict[str, Any]:
  """Returns the JSON that was saved beside the parameters."""
  found = ocp.checkpointables_metadata(resolve(folder)).custom_metadata
  return dict(found or {})


def stored(folder: str) -> dict[str, tuple[int, ...]]:
  """Returns '/'-joined path → shape of every parameter in a checkpoint."""
  metadata = ocp.checkpointables_metadata(resolve(folder)).metadata["params"]
  flat = traverse_util.flatten_dict(dict(metadata), sep="/")
  return {path: tuple(array.shape) for path, array in flat.items()}


def load_params(
  folder: str, wanted: Mapping[str, Any], *, verify: bool = False
) -> dict[str, jax.Array]:
  """Reads some parameters of a checkpoint straight into their shardings and dtypes.

  Args:
    folder: a checkpoint or a run's folder.
    wanted: '/'-joined path → ShapeDtypeStruct with its sharding.
    verify: whether every byte is held against the checkpoint's manifest first; names
      and sizes of its files always are.

  Raises:
    EagleError: naming every path that is not there or has another shape, and every file
      that is not as it was written.
  """
  # zarr takes a chunk whose file is missing for zeros, so the files are counted first.
  manifest.check(pathlib.Path(resolve(folder)), contents=verify)
  have = stored(folder)
  broken = [
    f"{path} is {'not there' if path not in have else f'{have[path]}'}, needed {leaf.shape}"
    for path, leaf in wanted.items()
    if have.get(path) != tuple(leaf.shape)
  ]
  if broken:
    raise EagleError(f"{folder} does not fit: " + "; ".join(broken))
  options = ocp.options.PyTreeOptions(loading=ocp.options.PyTreeOptions.Loading(partial_load=True))
  with ocp.Context(pytree_options=options):
    loaded = ocp.load_checkpointables(
      resolve(folder), {"params": traverse_util.unflatten_dict(dict(wanted), sep="/")}
    )
  return traverse_util.flatten_dict(loaded["params"], sep="/")
