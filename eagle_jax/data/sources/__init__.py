"""Where records lie: one module per format, behind one protocol.

A place is a file, a folder, or `FORMAT:PATH` where neither says what it is.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from eagle_jax.data.records import BadRecordError, BadRecords, Fault, Limits, Record, Tally
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup, nearest


class Numbered(Protocol):
  """Records by number, read when they are asked for; travels to worker processes whole."""

  def __len__(self) -> int:
    """Returns how many records have a number."""

  def __getitem__(self, number: int) -> Record:
    """Returns one record, a BadRecordError where it turns out unusable."""

  def place(self, number: int) -> str:
    """Returns where a record stands, as error messages name it."""


class Source(Numbered, Protocol):
  """The records of one place.

  Attributes:
    tally: the records that opening it found unusable; they have no number.
    licence: what the place says of its own licence, empty where it says nothing.
  """

  tally: Tally
  licence: str


class Format(NamedTuple):
  """How a format is known.

  Attributes:
    module: of this package; its `open_source(path, folder, limits)` gives the Source. It is
      imported when it is asked for, as pyarrow and TFDS take their time.
    ending: of file names, as a pattern.
    marker: a file that only folders of this format hold.
  """

  module: str
  ending: str
  marker: str = ""


FORMATS: dict[str, Format] = {
  "json": Format("json_text", r"\.jsonl?$"),
  "parquet": Format("parquet", r"\.parquet$"),
  "array_record": Format("shards", r"\.array_record(-\d{5}-of-\d{5})?$"),
  "tfds": Format("tfds", r"$^", marker="dataset_info.json"),  # a folder, never one file
}
REMEDIES = {
  errno.EACCES: "give this user the right to read it",
  errno.EPERM: "give this user the right to read it",
  errno.ENOENT: "put it back, or name where it is now",
  errno.EISDIR: "name the file in it",
}
"""Number of what a system refuses → what to do; for all else, the disk is at fault."""
SUFFIXES = (".json", ".jsonl", ".parquet", ".array_record")


def open_source(place: str, folder: str, limits: Limits) -> Source:
  """Opens a source; JSON is looked through, of the others no record is read yet.

  What the system refuses is an EagleError that names the file, now and when records are read.

  Args:
    place: a file or folder, or `FORMAT:PATH`.
    folder: what image names are relative to; may be empty where records hold pictures
      themselves, or none.
    limits: of a record.

  Raises:
    EagleError: if nothing is there, it may not be read, its format is not known, or it holds
      no record.
  """
  if folder and not os.path.isdir(folder):
    raise EagleError(f"data.images must be a folder, {folder!r} is none")
  if folder and not os.access(folder, os.X_OK):
    raise unreadable(f"data.images {folder!r}", PermissionError(errno.EACCES, "Permission denied"))
  try:
    name, path = recognise(place)
    module = importlib.import_module(f"{__name__}.{FORMATS[name].module}")
    return _Guarded(place, module.open_source(path, folder, limits))
  except OSError as error:
    raise unreadable(f"data.records {place!r}", error) from None


class _Guarded:
  """A source whose errors of the system are EagleErrors."""

  def __init__(self, place: str, source: Source):
    """Takes an opened source."""
    self._place, self._source = place, source
    self.tally, self.licence = source.tally, source.licence

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, number: int) -> Record:
    try:
      return self._source[number]
    except OSError as error:
      raise unreadable(f"data.records {self._place!r}", error) from None

  def place(self, number: int) -> str:
    """Returns where a record stands, as error messages name it."""
    return self._source.place(number)


def unreadable(what: str, error: OSError) -> EagleError:
  """Returns what is said of something that the system refuses to read.

  Args:
    what: field of the config and its value.
    error: the refusal; the file that it names is named, too, where that is another one.
  """
  file = error.filename
  named = f" {file!r}" if file is not None and repr(file) not in what else ""
  remedy = REMEDIES.get(error.errno or 0, "see to the disk; a run goes on from its checkpoint")
  return EagleError(f"{what} cannot be read:{named} {error.strerror or error}; {remedy}")


def recognise(place: str) -> tuple[str, str]:
  """Returns format and path of a place.

  Raises:
    EagleError: if the format cannot be told; names the nearest.
  """
  prefix, colon, path = place.partition(":")
  if colon and re.fullmatch(r"[a-z_]+", prefix) and not os.path.exists(place):
    lookup(FORMATS, prefix, what="format of records")
    return prefix, path
  folder = place.partition("#")[0]  # a split of TFDS may follow
  if os.path.isdir(folder):
    return _of_folder(folder), place
  known = _of_name(place)
  if known is None:
    suffix = os.path.splitext(place)[1]
    there = "" if os.path.exists(place) else ", and nothing is there"
    raise EagleError(
      f"data.records {place!r}: no format has the suffix {suffix!r}"
      f"{nearest(suffix, SUFFIXES)}{there}. Known: {', '.join(SUFFIXES)}, or FORMAT:PATH with one "
      f"of {', '.join(FORMATS)}"
    )
  return known, place


def _of_name(name: str) -> str | None:
  """Returns the format whose ending a file's name has."""
  return next((known for known, form in FORMATS.items() if re.search(form.ending, name)), None)


def _of_folder(folder: str) -> str:
  """Returns the format of what a folder holds."""
  inside = sorted(os.listdir(folder))
  for known, form in FORMATS.items():
    if form.marker and form.marker in inside:
      return known
  found = {form for form in map(_of_name, inside) if form and form != "json"}
  if len(found) != 1:
    raise EagleError(
      f"data.records {folder!r} must be a file, or a folder of one format: Parquet files, "
      f"shards of ArrayRecord or a TFDS data set; it holds {', '.join(inside[:5]) or 'nothing'}"
    )
  return found.pop()


def files(path: str, ending: str) -> list[str]:
  """Returns the files of a place: itself, or those of a folder, in order of their names.

  Raises:
    EagleError: if a file is not there, or shards numbered `-of-N` are not all there.
  """
  found = [path]
  if os.path.isdir(path):
    found = sorted(os.path.join(path, n) for n in os.listdir(path) if re.search(ending, n))
    demand_complete(found)
  for name in found:
    if not os.path.isfile(name):
      raise EagleError(f"data.records {name!r} cannot be read: it is no file")
  return found


def demand_complete(names: list[str]) -> None:
  """Checks that shards which say of how many they are one are all there.

  Raises:
    EagleError: naming how many there are.
  """
  told = [re.search(r"-of-(\d+)", os.path.basename(name)) for name in names]
  counts = {int(match[1]) for match in told if match}
  if counts and (len(counts) > 1 or counts != {len(names)}):
    raise EagleError(
      f"{os.path.dirname(names[0])!r} holds {len(names)} shards, their names speak of "
      f"{' and '.join(map(str, sorted(counts)))}"
    )


def demand_there(names: Iterable[str]) -> None:
  """Raises FileNotFoundError for the first file that has gone since it was opened."""
  for name in names:
    if not os.path.isfile(name):
      raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def usable(source: Numbered, bad: BadRecords) -> Iterator[Record]:
  """Yields the good records in order, counting the others."""
  for number in range(len(source)):
    try:
      yield source[number]
    except BadRecordError as error:
      bad.note(Fault(source.place(number), error.reason, error.detail))
