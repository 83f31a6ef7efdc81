"""What a checkpoint descends from, and what its ancestors have kept for the way back."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping

from eagle_jax import checkpoint
from eagle_jax.convert.files import open_source
from eagle_jax.convert.source import Accompanied, ArraySource, SafetensorsSource, Source
from eagle_jax.interchange.incoming import CARRIED_FILE, COMPANIONS_FOLDER, companions


@dataclasses.dataclass(frozen=True)
class Ancestor:
  """A checkpoint, or foreign files that a stage started from.

  Attributes:
    place: file or folder.
    parts: which parts of a model came in as this; none for a run of training.
    tensors: foreign ones, at least those that no parameter stands for.
    companions: name → contents of the files beside the weights.
  """

  place: pathlib.Path
  parts: frozenset[str]
  tensors: Source
  companions: Mapping[str, bytes]


def of(folder: str) -> Iterator[Ancestor]:
  """Yields a checkpoint itself, then all that it was trained from, as far as it is there.

  Args:
    folder: a checkpoint or a run's folder.
  """
  meta = checkpoint.read_meta(folder)
  yield _own(pathlib.Path(checkpoint.resolve(folder)), str(meta.get("what", "")))
  foreign = {told["place"]: told["part"] for told in meta.get("started_from", ()) if told["scheme"]}
  for entry in meta.get("config", {}).get("start_from", ()):
    origin = str(entry).partition("=")[2] or str(entry)
    if checkpoint.is_checkpoint(origin):
      yield from of(origin)
    elif origin in foreign and os.path.exists(origin):
      yield _foreign(pathlib.Path(origin), foreign[origin])


def _own(home: pathlib.Path, what: str) -> Ancestor:
  """Returns a checkpoint with what its conversion put beside it, if it is one."""
  carried = home / CARRIED_FILE
  beside = home / COMPANIONS_FOLDER
  return Ancestor(
    home,
    frozenset(what.split(",")) if what else frozenset(),
    SafetensorsSource(carried) if carried.is_file() else ArraySource({}),
    {f.name: f.read_bytes() for f in sorted(beside.iterdir())} if beside.is_dir() else {},
  )


def _foreign(place: pathlib.Path, part: str) -> Ancestor:
  """Returns foreign files with what a conversion would have kept of them."""
  source = open_source(place)
  beside = companions(place)
  if isinstance(source, Accompanied):
    beside |= source.companions()
  return Ancestor(place, frozenset((part,)), source, beside)
