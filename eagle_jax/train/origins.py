"""Where a stage's first parameters come from: checkpoints, foreign files, or chance."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from eagle_jax import checkpoint, config
from eagle_jax.convert import files, placed
from eagle_jax.errors import EagleError
from eagle_jax.interchange import recognise
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.train import stages, state

if typing.TYPE_CHECKING:
  from jaxtyping import Array

MAX_NAMED = 8
"""Parameters that a message names."""

VOCABULARY = {"language/embed/embedding": 0, "language/head/kernel": 1}
"""Parameter [V, D] or [D, V] → its axis with one entry per word."""


@dataclasses.dataclass(frozen=True)
class Record:
  """What a run began with, for its log and its checkpoints.

  Attributes:
    place: file or folder.
    parameters: how many came from there.
    part: 'checkpoint', or which part of a model the foreign files are.
    scheme: in whose names they are; '' for a checkpoint.
    read: bytes that this process took out of them, 0 for a checkpoint.
  """

  place: str
  parameters: int
  part: str = "checkpoint"
  scheme: str = ""
  read: int = 0

  def __str__(self) -> str:
    """Tells it in one line."""
    kind = f"{self.part} in the names of {self.scheme!r}" if self.scheme else self.part
    read = f", {self.read / 1e9:.3g} GB read" if self.scheme else ""
    return f"starts from {self.place}: {kind}, {self.parameters} parameters{read}"


class Origin(Protocol):
  """A place that parameters can be read from."""

  def held(self) -> Mapping[str, tuple[int, ...]]:
    """Returns '/'-joined path → shape of every parameter there."""

  def lacks(self) -> Mapping[str, str]:
    """Returns path → why no such files hold it."""

  def load(self, wanted: state.Abstract) -> tuple[dict[str, Array], Record]:
    """Reads parameters [...] straight into their shardings and dtypes."""


class Own:
  """A checkpoint of this project, or the latest in a run's folder."""

  def __init__(self, folder: str):
    self._folder = folder

  def held(self) -> Mapping[str, tuple[int, ...]]:
    """Returns '/'-joined path → shape of every parameter there."""
    return checkpoint.stored(self._folder)

  def lacks(self) -> Mapping[str, str]:
    """Returns nothing: a checkpoint may hold any parameter."""
    return {}

  def load(self, wanted: state.Abstract) -> tuple[dict[str, Array], Record]:
    """Reads parameters [...] straight into their shardings and dtypes."""
    return checkpoint.load_params(self._folder, wanted), Record(self._folder, len(wanted))


class Foreign:
  """Files of another project: this process reads the slices that its devices own."""

  def __init__(self, path: str, experiment: config.Experiment):
    """Reads the files' headers and plans where their tensors go."""
    self._path = path
    self._conversion = recognise.plan(path, experiment)

  def held(self) -> Mapping[str, tuple[int, ...]]:
    """Returns '/'-joined path → shape of every parameter there."""
    return {path: tuple(leaf.shape) for path, leaf in self._conversion.plan.leaves.items()}

  def lacks(self) -> Mapping[str, str]:
    """Returns path → why no files of this naming scheme hold it."""
    return self._conversion.fresh

  def load(self, wanted: state.Abstract) -> tuple[dict[str, Array], Record]:
    """Reads parameters [...] straight into their shardings and dtypes."""
    made = self._conversion
    arrays, read = placed.place(made.plan, made.source, wanted)
    return arrays, Record(self._path, len(wanted), made.what, made.scheme.name, read)


def parameters(
  experiment: config.Experiment, eagle: eagle_lib.Eagle, abstract: state.Abstract
) -> tuple[dict[str, Array], tuple[Record, ...]]:
  """Returns the parameters a stage begins with, each from where the experiment says.

  What the stage calls fresh is drawn at random. Everything else is read from the first
  entry of `start_from` that is for it: one with a pattern for what this matches, one
  without for what its files hold. A parameter that is not there is an error unless
  `init_missing` allows drawing it.

  Returns:
    path → array of every parameter, and what was read from where.

  Raises:
    EagleError: naming every parameter that is missing, or has another shape there.
  """
  fresh = stages.STAGES[experiment.stage].fresh
  drawn = {p for p in abstract if any(re.fullmatch(pattern, p) for pattern in fresh)}
  entries = [_split(text) for text in experiment.start_from]
  origins = {place: find(place, experiment) for _, place in entries}
  held = {place: origin.held() for place, origin in origins.items()}
  chosen: dict[str, state.Abstract] = {place: {} for place in origins}
  missing = []
  for path in (path for path in abstract if path not in drawn):
    place = _place_of(path, entries, held)
    if place is not None:
      chosen[place][path] = abstract[path]
    elif experiment.init_missing:
      drawn.add(path)
    else:
      missing.append(path)
  if missing:
    reasons = {p: why for origin in origins.values() for p, why in origin.lacks().items()}
    raise EagleError(_missing(experiment, missing, reasons))
  _demand_shapes(chosen, held)
  params = state.initialise(eagle, {p: abstract[p] for p in sorted(drawn)}, experiment.seed)
  records = []
  for place, wanted in chosen.items():
    if wanted:
      arrays, record = origins[place].load(wanted)
      params.update(arrays)
      records.append(record)
  return {path: params[path] for path in abstract}, tuple(records)


def find(place: str, experiment: config.Experiment) -> Origin:
  """Returns the origin that a file or folder is, by what lies there.

  Raises:
    EagleError: if there is nothing, or nothing that parameters could be read from.
  """
  if checkpoint.is_checkpoint(place):
    return Own(place)
  folder = pathlib.Path(place)
  if folder.is_dir() and not any((folder / name).is_file() for name in files.NAMES):
    raise EagleError(
      f"{place} is nothing to start from: it is no complete checkpoint of eagle-jax, nor does "
      f"it hold one of {', '.join(files.NAMES)} (config field 'start_from')"
    )
  return Foreign(place, experiment)


def _split(entry: str) -> tuple[re.Pattern[str] | None, str]:
  """Returns pattern and place of an entry 'PATTERN=PLACE' or 'PLACE'."""
  pattern, separator, place = entry.partition("=")
  if not separator:
    return None, entry
  try:
    return re.compile(pattern), place
  except re.error as error:
    raise EagleError(
      f"{pattern!r} is no pattern of paths: {error} (config field 'start_from')"
    ) from None


def _place_of(
  path: str,
  entries: Iterable[tuple[re.Pattern[str] | None, str]],
  held: Mapping[str, Mapping[str, Any]],
) -> str | None:
  """Returns where a parameter is read, None if the first entry for it does not hold it."""
  for pattern, place in entries:
    if pattern is None and path in held[place]:
      return place
    if pattern is not None and pattern.fullmatch(path):
      return place if path in held[place] else None
  return None


def _missing(
  experiment: config.Experiment, paths: Sequence[str], reasons: Mapping[str, str]
) -> str:
  """Returns the message that parameters are nowhere to be had."""
  named = [f"{p} ({reasons[p]})" if p in reasons else p for p in sorted(paths)[:MAX_NAMED]]
  return (
    f"stage {experiment.stage!r} starts from {', '.join(experiment.start_from) or 'nothing'}, "
    f"which must hold every tensor it does not draw afresh; {len(paths)} are not there: "
    f"{', '.join(named)}{', …' if len(paths) > MAX_NAMED else ''} "
    "(config fields 'start_from' and 'init_missing')"
  )


def _demand_shapes(
  chosen: Mapping[str, state.Abstract], held: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> None:
  """Demands that parameters have the model's shapes where they are read.

  Raises:
    EagleError: naming all that have not, and the field to set for another vocabulary.
  """
  broken, rows = [], set()
  for place, wanted in chosen.items():
    for path, leaf in wanted.items():
      found = held[place][path]
      if found != tuple(leaf.shape):
        broken.append(f"{path} in {place} is {list(found)}, the model's is {list(leaf.shape)}")
        if path in VOCABULARY and len(found) == len(leaf.shape):
          rows.add(found[VOCABULARY[path]])
  if broken:
    told = "; ".join(broken[:MAX_NAMED]) + ("; …" if len(broken) > MAX_NAMED else "")
    hint = "".join(f"; for a vocabulary of {n} rows set config.model.vocab_rows={n}" for n in rows)
    raise EagleError(f"what a stage starts from must have the model's shapes: {told}{hint}")
