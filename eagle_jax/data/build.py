"""Any source as shards of ArrayRecord: pictures and conversations together, read at random.

The folder gets its name when all is there. Until then a journal beside the shards says
which are finished: the same command begun again goes on behind them, and what it ends with
has the bytes of a build that nothing interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from eagle_jax import config
from eagle_jax.data import image, records, sources
from eagle_jax.data.records import BadRecordError, BadRecords, Fault, Limits, Record, Tally
from eagle_jax.data.sources import Source, shards
from eagle_jax.errors import EagleError

JOURNAL, PARTIAL = "journal.jsonl", ".partial"
MAX_IMAGE = 256 << 20  # bytes of an encoded picture
_THREADS, _BLOCK = 16, 64  # records read at once
# Pictures are compressed already, and what is not compressed is read as fast as the disk.
_OPTIONS = "group_size:1,uncompressed"


class Shard(NamedTuple):
  """A finished shard.

  Attributes:
    next: number in the source that building goes on with.
    records: how many it holds.
    bytes: its size.
    sha256: of the file, in hexadecimal.
    bad: bad records by reason met while it was written.
  """

  next: int
  records: int
  bytes: int
  sha256: str
  bad: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What is to be built, and how.

  Attributes:
    source: its records, images and licence.
    limits: of a record.
    budget: share of bad records above which the build fails, in [0, 1].
    shard_bytes: a shard ends before the record that would take it beyond.
  """

  source: config.Source
  limits: Limits
  budget: float
  shard_bytes: int

  def identity(self) -> dict[str, Any]:
    """Returns what must be equal for an interrupted build to go on, as JSON-able data."""
    path = sources.recognise(self.source.records)[1].partition("#")[0]
    found = [os.path.join(path, n) for n in os.listdir(path)] if os.path.isdir(path) else [path]
    stamps = {
      os.path.basename(name): [os.stat(name).st_size, os.stat(name).st_mtime_ns]
      for name in sorted(found)
    }
    asked = json.loads(json.dumps(dataclasses.asdict(self)))
    return {**asked, "budget": 0, "files": stamps}


def build(
  wanted: Wanted, folder: str, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
  """Writes the shards and their manifest, or goes on where an interrupted build stopped.

  Args:
    wanted: what, and how.
    folder: must not exist yet.
    progress: is told how many records of the source are done, and of how many.

  Returns:
    the manifest.

  Raises:
    EagleError: if the folder exists, an interrupted build there was of something else, too
      many records are bad, or none is good.
  """
  target = Path(folder).resolve()
  if target.exists():
    raise EagleError(f"{folder} exists already; nothing is overwritten, name a new folder")
  partial = target.with_name(target.name + PARTIAL)
  opened = sources.open_source(wanted.source.records, wanted.source.images, wanted.limits)
  with _disk(partial):
    finished = _resume(partial, wanted.identity())
    bad = _counted(wanted, opened, finished)
    bad.check()
    for shard in _written(opened, partial, wanted, finished=finished, bad=bad, progress=progress):
      finished.append(shard)
      _append(partial / JOURNAL, shard._asdict())
    if not any(shard.records for shard in finished):
      raise EagleError(f"data.records {wanted.source.records!r} holds no usable record")
    return _finish(partial, target, _manifest(wanted, opened, finished=finished, bad=bad))


def _resume(partial: Path, identity: Mapping[str, Any]) -> list[Shard]:
  """Returns the finished shards of an interrupted build, or begins a new one."""
  journal = partial / JOURNAL
  lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
  whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
  if not whole:
    partial.mkdir(parents=True, exist_ok=True)
    journal.unlink(missing_ok=True)
    _append(journal, dict(identity))
    return []
  if whole[0] != identity:
    raise EagleError(
      f"{partial} holds what an interrupted build made of other files or with other options; "
      "remove it, or name another folder"
    )
  journal.write_bytes(b"".join(line for line in lines if line.endswith(b"\n")))
  return [Shard(**entry) for entry in whole[1:]]


def _counted(wanted: Wanted, opened: Source, finished: list[Shard]) -> BadRecords:
  """Returns the count of bad records as it stood when the last shard was finished."""
  known = [opened.tally]
  for shard in finished:
    tally = Tally()
    tally.counts.update(shard.bad)
    known.append(tally)
  total = len(opened) + len(opened.tally)
  return BadRecords(budget=wanted.budget, total=total, known=known)


def _written(
  opened: Source,
  partial: Path,
  wanted: Wanted,
  *,
  finished: list[Shard],
  bad: BadRecords,
  progress: Callable[[int, int], None],
) -> Iterator[Shard]:
  """Writes what is missing; yields each shard once the disk has it."""
  first = finished[-1].next if finished else 0
  if first >= len(opened):
    return
  index = len(finished)
  shard = _Open(partial, index)
  for number, made in _packed(opened, first):
    progress(number, len(opened))
    if isinstance(made, BadRecordError):
      shard.bad[made.reason] = shard.bad.get(made.reason, 0) + 1
      bad.note(Fault(opened.place(number), made.reason, made.detail))
      bad.check()
      continue
    if shard.records and shard.size + len(made) > wanted.shard_bytes:
      yield shard.close(number)
      index += 1
      shard = _Open(partial, index)
    shard.write(made)
  yield shard.close(len(opened))
  progress(len(opened), len(opened))


class _Open:
  """The shard that is being written."""

  def __init__(self, partial: Path, index: int):
    """Begins shard `index`, over what an interrupted build left of it."""
    from array_record.python import array_record_module

    self._path = partial / _name(index)
    self._writer = array_record_module.ArrayRecordWriter(str(self._path), _OPTIONS)
    self.records, self.size = 0, 0
    self.bad: dict[str, int] = {}

  def write(self, data: bytes) -> None:
    """Appends a record."""
    self._writer.write(data)
    self.records, self.size = self.records + 1, self.size + len(data)

  def close(self, following: int) -> Shard:
    """Ends the shard; `following` is the number of the record that comes next."""
    self._writer.close()
    with self._path.open("rb") as file:
      os.fsync(file.fileno())
      digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(following, self.records, self._path.stat().st_size, digest, self.bad)


def _packed(opened: Source, first: int) -> Iterator[tuple[int, bytes | BadRecordError]]:
  """Yields the records from `first` on as a shard holds them, or what is wrong with them."""

  def make(number: int) -> tuple[int, bytes | BadRecordError]:
    """Reads one record with its pictures; runs in threads."""
    try:
      record = opened[number]
      return number, shards.pack(record, encoded_images(record))
    except BadRecordError as error:
      return number, error

  with ThreadPoolExecutor(_THREADS) as pool:
    for begin in range(first, len(opened), _BLOCK):
      yield from pool.map(make, range(begin, min(begin + _BLOCK, len(opened))))


def encoded_images(record: Record) -> list[bytes]:
  """Returns the encoded files of a record's pictures, each looked at but not decoded.

  Raises:
    BadRecordError: if one cannot be read, is of no known format or too large.
  """
  found = []
  for given in record.images:
    data = given if isinstance(given, bytes) else _contents(records.safe_join(record.folder, given))
    image.examine(data)
    found.append(data)
  return found


def _contents(path: str) -> bytes:
  """Returns the bytes of a picture's file."""
  try:
    if os.path.getsize(path) > MAX_IMAGE:
      raise BadRecordError("image too large", f"{path!r} has more than {MAX_IMAGE} bytes")
    with open(path, "rb") as file:
      return file.read()
  except OSError as error:
    raise BadRecordError("unreadable image", f"{path!r}: {error.strerror}") from None


def _manifest(
  wanted: Wanted, opened: Source, *, finished: list[Shard], bad: BadRecords
) -> dict[str, Any]:
  """Returns what is written beside the shards; nothing in it depends on when or how often."""
  source = wanted.source
  return {
    "format": shards.MAGIC.decode(),
    "source": {"records": source.records, "images": source.images},
    "licence": source.licence or opened.licence,
    "records": sum(shard.records for shard in finished),
    "bad": dict(sorted(bad.by_reason.items())),
    "shards": [
      {
        "name": _name(index, len(finished)),
        "records": shard.records,
        "bytes": shard.bytes,
        "sha256": shard.sha256,
      }
      for index, shard in enumerate(finished)
    ],
  }


def _finish(partial: Path, target: Path, manifest: dict[str, Any]) -> dict[str, Any]:
  """Gives shards and folder their names; may have been interrupted before."""
  for index, shard in enumerate(manifest["shards"]):
    written = partial / _name(index)
    if written.exists():
      written.rename(partial / shard["name"])
  (partial / shards.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
  _sync(partial / shards.MANIFEST)
  partial.rename(target)
  _sync(target.parent)
  (target / JOURNAL).unlink()
  return manifest


def check(folder: str) -> int:
  """Holds the shards of a folder against its manifest; returns how many there are.

  Raises:
    EagleError: if there is no manifest, or a shard is missing or has other bytes.
  """
  path = Path(folder) / shards.MANIFEST
  if not path.is_file():
    raise EagleError(f"{folder!r} has no {shards.MANIFEST} to be held against")
  told = json.loads(path.read_text())["shards"]
  for shard in told:
    place = Path(folder) / shard["name"]
    if not place.is_file():
      raise EagleError(f"{place} is missing")
    with place.open("rb") as file:
      if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
        raise EagleError(f"{place} is not as it was written")
  return len(told)


def _name(index: int, count: int | None = None) -> str:
  """Returns the name of a shard; how many there are is not known before the last."""
  of = "" if count is None else f"-of-{count:05d}"
  return f"records.array_record-{index:05d}{of}"


def _append(journal: Path, entry: Mapping[str, Any]) -> None:
  """Writes one line and waits until the disk has it."""
  with journal.open("a") as file:
    file.write(json.dumps(entry) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _sync(path: Path) -> None:
  """Waits until the disk has a file, or the names in a folder."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[None]:
  """Turns what a disk refuses to do into an error that says how to go on."""
  try:
    yield
  except OSError as error:
    raise EagleError(
      f"{place}: {error.strerror or error}; finished shards stay, the same command goes on"
    ) from None
