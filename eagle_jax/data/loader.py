"""From the number of a record to the row it makes; what a worker process does.

An element of the stream is a pure function of its record, so it does not matter who
makes it, and a record that turns out bad is replaced by the next good one of its source.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import grain
import numpy as np
from absl import flags

from eagle_jax import config
from eagle_jax.data import batch, conversation, image, mixture, pack, tokenize, upstream
from eagle_jax.data.mixture import Mixture
from eagle_jax.data.records import BadRecordError, BadRecords, Fault, Record
from eagle_jax.data.tokenize import Encoded
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER

if TYPE_CHECKING:
  from eagle_jax.data.batch import Pictures

_REPLACEMENTS = 64  # records tried in place of an unreadable one before giving up


class Sample(NamedTuple):
  """A conversation without its pictures, enough to decide what goes together.

  Attributes:
    number: of the record.
    encoded: its ids, one PLACEHOLDER per picture.
    positions: that it takes in a row, its image tokens included.
    images: pictures that it takes along.
  """

  number: int
  encoded: Encoded
  positions: int
  images: int


class Loaded(NamedTuple):
  """A Row or a Sample, or None where every record tried was bad, and the bad ones met.

  `number` is that of the record it was made of.
  """

  made: Any
  faults: tuple[Fault, ...]
  number: int = -1


class Loader:
  """Turns record numbers into rows, or into samples whose pictures come later."""

  def __init__(
    self,
    found: Mixture,
    data: config.Data,
    *,
    tokenizer: tokenize.Tokenizer,
    image_size: int,
    tokens_per_image: int,
    load: Callable[..., Pictures] = image.load,
  ):
    """Keeps what reading needs; no file is opened yet.

    Args:
      found: the records.
      data: how they become rows.
      tokenizer: the vocabulary.
      image_size: pixels per side of a square.
      tokens_per_image: N.
      load: reads the pictures of a record; `canvas.load` leaves them to a device.

    Raises:
      EagleError: if template, vocabulary and `data.compat` do not go together.
    """
    self._records, self._data, self._tokenizer = found, data, tokenizer
    self._template = conversation.template(data.template)
    tokenize.demand_specials(tokenizer, self._template)
    self._encode = upstream.encoder(data.compat, self._template)
    self._image_size, self._tokens_per_image, self._load = image_size, tokens_per_image, load

  def __call__(self, number: int) -> Loaded:
    """Makes a row of record `number`, or of the next one after it that can be read."""
    return self._first_good(number, self.read)

  def sample(self, number: int) -> Loaded:
    """Makes a sample likewise; no picture is opened."""
    return self._first_good(number, self.measure)

  def _first_good(self, number: int, make: Callable[[int], Any]) -> Loaded:
    """Returns what `make` makes of the first record from `number` on that is not bad."""
    faults: list[Fault] = []
    for tried in itertools.islice(self._records.following(number), _REPLACEMENTS):
      try:
        return Loaded(make(tried), tuple(faults), tried)
      except BadRecordError as bad:
        faults.append(self.fault(tried, bad))
    return Loaded(None, tuple(faults))

  def fault(self, number: int, bad: BadRecordError) -> Fault:
    """Returns what is wrong with a record, by its place."""
    return Fault(self._records.place(number), bad.reason, bad.detail)

  def read(self, number: int) -> batch.Row:
    """Reads one record with its pictures.

    Raises:
      BadRecordError: if it cannot be used.
    """
    record = self._records[number]
    return self._row(record, self._encoded(record))

  def measure(self, number: int) -> Sample:
    """Reads one record without its pictures.

    Raises:
      BadRecordError: if it cannot be used.
    """
    encoded = self._encoded(self._records[number])
    pictures = int(np.sum(encoded.ids == PLACEHOLDER))
    # Pictures without pixels, for a row is counted as it is made.
    row = batch.row(
      encoded,
      np.zeros((pictures, 0, 0, 3), np.uint8),
      tokens_per_image=self._tokens_per_image,
      max_length=self._data.max_length,
    )
    row = self._fitted(row)
    return Sample(number, encoded, len(row.tokens), len(row.images))

  def complete(self, sample: Sample) -> batch.Row | Fault:
    """Returns a sample with its pictures read, or what is wrong with them."""
    try:
      pictured = np.any(sample.encoded.ids == PLACEHOLDER)
      record = self._records[sample.number] if pictured else None
      return self._fitted(self._row(record, sample.encoded))
    except BadRecordError as bad:
      return self.fault(sample.number, bad)

  def _fitted(self, row: batch.Row) -> batch.Row:
    """Returns a row as the others of its batch need it."""
    return pack.whole(row, self._tokens_per_image) if self._data.pack else row

  def _encoded(self, record: Record) -> Encoded:
    """Returns the ids of a conversation and which are targets."""
    form = mixture.spoken(self._template, record)
    return self._encode(self._tokenizer, form, record.turns, max_length=self._data.max_length)

  def _row(self, record: Record | None, encoded: Encoded) -> batch.Row:
    """Returns a row; pictures whose placeholder was cut off are not opened."""
    pictures = int(np.sum(encoded.ids == PLACEHOLDER))
    images = record.images[:pictures] if record else ()
    return batch.row(
      encoded,
      self._load(images, self._data, self._image_size, folder=record.folder if record else ""),
      tokens_per_image=self._tokens_per_image,
      max_length=self._data.max_length,
    )


def _leave_with_parent(worker: int, workers: int) -> None:
  """Ends this worker when the process that started it does, which may be killed without a word."""
  del worker, workers

  def watch() -> None:
    """Waits for the end."""
    if parent := multiprocessing.parent_process():
      parent.join()
      os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


class Elements:
  """What the loader makes of one process's records, in order and read ahead, without end."""

  def __init__(self, made: grain.MapDataset[Loaded], *, workers: int, ahead: int, bad: BadRecords):
    """Stands before the first element.

    Args:
      made: all elements.
      workers: processes that make them; 0 makes them in threads of this one.
      ahead: elements to read ahead.
      bad: counts the bad records that are met.
    """
    self._made, self._workers, self._ahead, self._bad = made, workers, ahead, bad
    self._stream: grain.DatasetIterator[Loaded] | None = None
    self.position = 0

  def take(self, count: int) -> list[Any]:
    """Returns the next `count` elements.

    Raises:
      EagleError: if bad records pass their budget.
    """
    if self._stream is None:
      self._stream = self._open()
    taken = [self._checked(next(self._stream)) for _ in range(count)]
    self.position += count
    return taken

  def look(self, position: int, count: int) -> list[Loaded]:
    """Makes `count` elements from `position` on once more, for whoever asks; nothing moves."""
    return [self._made[n] for n in range(position, position + count)]

  def go_to(self, position: int) -> None:
    """Goes to the element behind the first `position` of them."""
    self.close()
    self.position = position

  def close(self) -> None:
    """Ends reading ahead; the next element starts it again."""
    if self._stream is not None:
      self._stream.close()
      self._stream = None

  def _open(self) -> grain.DatasetIterator[Loaded]:
    """Starts reading at the position."""
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, self._ahead))
    stream = self._made[self.position :].to_iter_dataset(options)
    if self._workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers inherit absl flags and insist on this
      stream = stream.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=self._workers), _leave_with_parent
      )
    return iter(stream)

  def _checked(self, loaded: Loaded) -> Any:
    """Counts the bad records of an element and returns what was made."""
    self.note(loaded.faults)
    if loaded.made is None:
      raise EagleError(
        f"{len(loaded.faults)} records in a row are unusable, the last: {loaded.faults[-1]}"
      )
    return loaded.made

  def note(self, faults: tuple[Fault, ...]) -> None:
    """Counts bad records.

    Raises:
      EagleError: if they pass their budget.
    """
    for fault in faults:
      self._bad.note(fault)
    self._bad.check()
