"""A checkpoint written slice by slice, so that its arrays never stand in memory whole.

Each slice is one or a few uncompressed zarr chunks, that is, files that are written
once, by any thread, in any order. A journal remembers what is written: the same
conversion begun again goes on there. Nothing bears the final name before all is there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from eagle_jax.checkpoint import manifest
from eagle_jax.errors import EagleError
from eagle_jax.types import Layout

MAX_CHUNK = 64 << 20
"""Bytes of a chunk, where its length can be divided so; a reader takes chunks whole."""

SYNC_BYTES = 256 << 20
"""Bytes written before the disk is waited for: each wait holds up all that is being written."""

JOURNAL, ARRAYS, SKELETON = "journal.jsonl", "arrays", "skeleton"
PARTIAL = ".partial"
"""Ending of the folder's name until it is complete."""

GOES_ON = "what is written stays, the same command goes on with it"

FINISH_BYTES = 1 << 20
"""Room for what describes a checkpoint, beside two small files for each parameter."""


class Writer:
  """Parameters on their way into a new checkpoint of parameters alone."""

  def __init__(self, folder: str | Path, layouts: Mapping[str, Layout], *, identity: str):
    """Begins the checkpoint, or goes on with one that was interrupted.

    Args:
      folder: must not exist yet.
      layouts: '/'-joined path → how its array lies on disk.
      identity: of what is written; only the same one may go on.

    Raises:
      EagleError: if the folder exists, an interrupted one holds something else, or the disk
        is full.
    """
    self._folder = Path(folder).resolve()
    if self._folder.exists():
      raise EagleError(f"{folder} exists already; nothing saved is overwritten, name a new folder")
    self._partial = self._folder.with_name(self._folder.name + PARTIAL)
    self._layouts = layouts
    self._lock = threading.Lock()
    self._unsure: list[str] = []
    with _disk(self._partial):
      if (self._partial / "params").exists():  # interrupted while it was made whole
        os.rename(self._partial / "params", self._partial / ARRAYS)
      self._written = self._resume(identity)
      for path, layout in layouts.items():
        file = self._partial / ARRAYS / _name(path) / ".zarray"
        told = json.dumps(_zarray(layout)).encode()
        # One that is there may be cut off: it is in no journal.
        if not file.exists() or file.read_bytes() != told:
          file.parent.mkdir(parents=True, exist_ok=True)
          manifest.sync(file, told)

  def _resume(self, identity: str) -> dict[str, manifest.Digest]:
    """Reads the journal, or begins it; returns the digests of the files that are whole."""
    journal = self._partial / JOURNAL
    held = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    if not held or not held[0].endswith(b"\n"):
      shutil.rmtree(self._partial / ARRAYS, ignore_errors=True)
      self._partial.mkdir(parents=True, exist_ok=True)
      manifest.sync(journal, json.dumps({"identity": identity}).encode() + b"\n")
      return {}
    first, *lines = held
    if json.loads(first)["identity"] != identity:
      raise EagleError(
        f"{self._partial} holds what an interrupted run wrote from other files or with other "
        "options; remove it, or name another folder"
      )
    known, whole = {}, [first]
    for line in lines:
      with contextlib.suppress(ValueError):  # a line cut off: that file is written again
        entry = json.loads(line)
        whole.append(line)
        file = self._partial / entry["file"]
        if file.exists() and file.stat().st_size == entry["bytes"]:
          known[entry["file"]] = {"bytes": entry["bytes"], "sha256": entry["sha256"]}
    if len(whole) < len(held) or not held[-1].endswith(b"\n"):
      journal.write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in whole))
    return known

  def has(self, path: str, index: Sequence[int] = ()) -> bool:
    """Whether a slice is written already, all of it."""
    return all(name in self._written for name, _ in self._files(path, index))

  def put(self, path: str, index: Sequence[int], array: np.ndarray) -> None:
    """Writes one slice; may be called by several threads at once.

    Args:
      path: of the parameter.
      index: of the slice on the leading axes, () for the whole.
      array: the slice, of the layout's dtype; not copied if it lies in the layout's order.

    Raises:
      EagleError: if the slice has another shape or dtype, or the disk takes no more.
    """
    layout = self._layouts[path]
    wanted = layout.shape[layout.depth :]
    if array.shape != wanted or array.dtype != layout.dtype or len(index) != layout.depth:
      raise EagleError(
        f"{path}{list(index)} takes {layout.dtype} {list(wanted)}, "
        f"it is given {array.dtype} {list(array.shape)}"
      )
    flat = np.ascontiguousarray(array.T if layout.order == "F" else array)
    files = self._files(path, index)
    blocks = flat.reshape(len(files), -1).view(np.uint8)  # [parts, bytes]
    for (name, place), block in zip(files, blocks, strict=True):
      if name not in self._written:
        self._write(name, place, block)

  def _write(self, name: str, place: Path, block: np.ndarray) -> None:
    """Writes one file; `block` is uint8 [bytes]."""
    try:
      known = _write_hashed(place, block.data)
    except OSError as error:
      place.unlink(missing_ok=True)
      with contextlib.suppress(EagleError):  # the disk may be too full for the journal, too
        self._remember(self._take())
      raise EagleError(f"{place} takes {block.nbytes} bytes: {error.strerror}; {GOES_ON}") from None
    with self._lock:
      self._written[name] = known
      self._unsure.append(name)
      waiting = sum(int(self._written[n]["bytes"]) for n in self._unsure)
      due = self._take() if waiting >= SYNC_BYTES else []
    self._remember(due)

  def _take(self) -> list[str]:
    """Returns the files the disk may not have yet, which the caller is to make sure of."""
    taken, self._unsure = self._unsure, []
    return taken

  def _remember(self, names: Sequence[str]) -> None:
    """Waits until the disk has these files, then notes them in the journal."""
    with _disk(self._partial):
      for name in names:
        manifest.sync_path(self._partial / name)
      if names:
        lines = [json.dumps({"file": name, **self._written[name]}) + "\n" for name in names]
        with self._lock, (self._partial / JOURNAL).open("a") as journal:
          journal.writelines(lines)

  def _files(self, path: str, index: Sequence[int]) -> list[tuple[str, Path]]:
    """Returns the files of a slice in the order of their bytes: journal name and place."""
    layout = self._layouts[path]
    rest = len(layout.shape) - layout.depth
    axis = rest - 1 if layout.order == "F" else 0
    found = []
    for part in range(_parts(layout)):
      place = [part if n == axis else 0 for n in range(rest)]
      chunk = ".".join(map(str, (*index, *place))) or "0"
      name = f"{ARRAYS}/{_name(path)}/{chunk}"
      found.append((name, self._partial / name))
    return found

  def finish(self, meta: Mapping[str, Any], extra: Mapping[str, bytes]) -> None:
    """Makes the checkpoint whole and gives it its name.

    Args:
      meta: JSON-able description: where the parameters come from.
      extra: name, in a folder or not, → contents of files to lie beside the parameters.

    Raises:
      EagleError: if a slice was never written, or the disk is full.
    """
    missing = [
      f"{path}{list(index)}"
      for path, layout in self._layouts.items()
      for index in itertools.product(*map(range, layout.shape[: layout.depth]))
      if not self.has(path, index)
    ]
    if missing:
      raise EagleError(f"{len(missing)} slices were never written: {', '.join(missing[:5])}")
    self._remember(self._take())
    with _disk(self._partial):
      for name, contents in extra.items():
        (self._partial / name).parent.mkdir(exist_ok=True)
        manifest.sync(self._partial / name, contents)
      self._dress(meta)
      (self._partial / JOURNAL).unlink()
      moved = {"params" + name.removeprefix(ARRAYS): known for name, known in self._written.items()}
      manifest.write(self._partial, moved)
      os.rename(self._partial, self._folder)
      manifest.sync_path(self._folder.parent)

  def _demand_room(self) -> None:
    """Raises OSError where the disk is too full for `_dress`: Orbax would print tracebacks."""
    disk = os.statvfs(self._partial)
    needed = 2 * len(self._layouts) * disk.f_frsize + FINISH_BYTES
    if disk.f_bavail * disk.f_frsize < needed:
      raise OSError(errno.ENOSPC, f"the disk is full, {needed} bytes must be free to finish")

  def _dress(self, meta: Mapping[str, Any]) -> None:
    """Lets Orbax save a tree of scalars, and puts the arrays in their place."""
    skeleton, params = self._partial / SKELETON, self._partial / "params"
    for left in self._partial.glob(SKELETON + "*"):
      shutil.rmtree(left)
    self._demand_room()
    scalars = {path: np.zeros((), layout.dtype) for path, layout in self._layouts.items()}
    saving = ocp.options.ArrayOptions.Saving(use_ocdbt=False, use_zarr3=False)
    with ocp.Context(array_options=ocp.options.ArrayOptions(saving=saving)):
      ocp.save_checkpointables(
        skeleton,
        {"params": traverse_util.unflatten_dict(scalars, sep="/")},
        custom_metadata=dict(meta),
      )
    for path in self._layouts:
      shutil.rmtree(skeleton / "params" / _name(path))
    if not params.exists():
      os.rename(self._partial / ARRAYS, params)
    for file in (skeleton / "params").iterdir():
      os.replace(file, params / file.name)
    (skeleton / "params").rmdir()
    for file in skeleton.iterdir():
      os.replace(file, self._partial / file.name)
    skeleton.rmdir()


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[None]:
  """Turns what a disk refuses to do at a place into an error that says how to go on."""
  try:
    yield
  except OSError as error:
    raise EagleError(f"{place}: {error.strerror or error}; {GOES_ON}") from None


def _write_hashed(place: Path, data: memoryview) -> manifest.Digest:
  """Hashes what is to be in a file, then hands it to the disk without waiting for it."""
  # Hashing comes first: it brings mapped pages in, which a write would do one by one.
  digest = hashlib.sha256(data).hexdigest()
  with place.open("wb", buffering=0) as file:
    written = 0
    while written < len(data):
      written += file.write(data[written:])
    if hasattr(os, "posix_fadvise"):  # on Linux this starts the writing
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
  return {"bytes": len(data), "sha256": digest}


def _name(path: str) -> str:
  """Returns the folder Orbax gives a parameter."""
  return path.replace("/", ".")


def _parts(layout: Layout) -> int:
  """Returns into how many equal chunks a slice is cut along its slowest axis."""
  rest = layout.shape[layout.depth :]
  if not rest:
    return 1
  length = rest[-1 if layout.order == "F" else 0]
  size = math.prod(rest) * layout.dtype.itemsize
  few = range(1, min(length, 4 * size // MAX_CHUNK + 1) + 1)
  # A length without a fitting divisor stays whole: zarr would pad an uneven last chunk.
  return next((n for n in few if length % n == 0 and size <= n * MAX_CHUNK), 1)


def _zarray(layout: Layout) -> dict[str, Any]:
  """Returns what zarr says of an array. Source: the zarr format, version 2."""
  rest = list(layout.shape[layout.depth :])
  if rest:
    rest[-1 if layout.order == "F" else 0] //= _parts(layout)
  # bfloat16 has no code of zarr's own; TensorStore and Orbax call it by name.
  known = layout.dtype.name == "bfloat16"
  return {
    "zarr_format": 2,
    "shape": list(layout.shape),
    "chunks": [1] * layout.depth + [max(length, 1) for length in rest],  # zarr has no empty chunk
    "dtype": "bfloat16" if known else layout.dtype.str,
    "order": layout.order,
    "compressor": None,
    "fill_value": None,
    "filters": None,
    "dimension_separator": ".",
  }
