"""Parameters of a checkpoint that are read a slice at a time, when they are asked for."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import tensorstore

from eagle_jax.checkpoint import manifest
from eagle_jax.checkpoint.params import resolve


class LazyArray:
  """A stored array; indexing its leading axes reads that much of it."""

  def __init__(self, store: Any):
    """Wraps an open TensorStore."""
    self._store = store
    self.shape: tuple[int, ...] = tuple(store.shape)
    self.dtype: np.dtype = np.dtype(store.dtype.numpy_dtype)

  def __getitem__(self, index: tuple[int, ...]) -> np.ndarray:
    """Reads the slice at an index of the leading axes, () for all of it, as [...]."""
    return np.asarray(self._store[index].read().result())

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """Reads the whole array [...]; what was read is always a copy."""
    del copy
    whole = self[()]
    return whole if dtype is None else whole.astype(dtype)


def open_params(folder: str) -> dict[str, LazyArray]:
  """Returns '/'-joined path → array of every parameter of a checkpoint, none of them read.

  Args:
    folder: a checkpoint, or a run's folder.

  Raises:
    EagleError: if there is no complete checkpoint, or one of its files is missing.
  """
  home = pathlib.Path(resolve(folder))
  manifest.check(home, contents=False)
  home = home / "params"
  told = json.loads((home / "_METADATA").read_text())
  driver = "zarr3" if told.get("use_zarr3") else "zarr"
  found = {}
  for entry in told["tree_metadata"].values():
    keys = [str(key["key"]) for key in entry["key_metadata"]]
    found["/".join(keys)] = LazyArray(
      tensorstore.open(
        {"driver": driver, "kvstore": _kvstore(home, ".".join(keys), bool(told.get("use_ocdbt")))},
        open=True,
        read=True,
      ).result()
    )
  return found


def _kvstore(home: pathlib.Path, name: str, packed: bool) -> dict[str, Any]:
  """Returns where TensorStore finds an array: in a packed database, or in a folder."""
  if packed:
    return {"driver": "ocdbt", "base": f"file://{home}/", "path": f"{name}/"}
  return {"driver": "file", "path": f"{home / name}/"}
