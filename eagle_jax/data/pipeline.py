"""The stream of batches that training reads: shuffled, split by process, resumable.

Element k of a process is a pure function of (seed, k): the records are shuffled anew
in every epoch, process p of P takes every P-th element from p on, and a record whose
picture turns out unreadable is replaced by the next good one. So a batch does not
depend on the number of workers, and the position in the stream is one number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
from absl import flags

from eagle_jax import config
from eagle_jax.data import batch, conversation, image, records, tokenize
from eagle_jax.data.records import BadRecordError, BadRecords, Fault, Record
from eagle_jax.errors import EagleError
from eagle_jax.types import Batch

_REPLACEMENTS = 64  # records tried in place of an unreadable one before giving up


class Loaded(NamedTuple):
  """A row, or None where every record tried was bad, and the bad ones met on the way."""

  row: batch.Row | None
  faults: tuple[Fault, ...]


class Loader:
  """Turns record numbers into rows; Grain calls it, in workers where there are any."""

  def __init__(
    self,
    found: Sequence[Record],
    data: config.Data,
    *,
    tokenizer: tokenize.Tokenizer,
    image_size: int,
    tokens_per_image: int,
  ):
    """Keeps what reading needs; no file is opened yet."""
    self._records = found
    self._data = data
    self._tokenizer = tokenizer
    self._template = conversation.template(data.template)
    self._image_size = image_size
    self._tokens_per_image = tokens_per_image

  def __call__(self, number: int) -> Loaded:
    """Reads record `number`, or the next one after it that can be read."""
    faults: list[Fault] = []
    for step in range(min(_REPLACEMENTS, len(self._records))):
      record = self._records[(number + step) % len(self._records)]
      try:
        return Loaded(self.read(record), tuple(faults))
      except BadRecordError as bad:
        faults.append(Fault(record.place, bad.reason, bad.detail))
    return Loaded(None, tuple(faults))

  def read(self, record: Record) -> batch.Row:
    """Reads one record.

    Raises:
      BadRecordError: if its pictures or its turns cannot be used.
    """
    encoded = tokenize.conversation(self._tokenizer, self._template, record.turns)
    return batch.row(
      encoded,
      image.load(record.images, self._data, self._image_size),
      tokens_per_image=self._tokens_per_image,
      max_length=self._data.max_length,
    )


class BatchIterator(Iterator[Batch]):
  """Batches of this process without end; the position can be taken and gone back to.

  Attributes:
    num_records: usable records of the file, over all processes: one epoch.
    bad: the unusable ones met so far, by this process.
  """

  def __init__(
    self,
    elements: grain.MapDataset,
    data: config.Data,
    *,
    rows: int,
    image_size: int,
    pad_id: int,
    num_records: int,
    bad: BadRecords,
  ):
    """Starts before the first element of `elements`, a batch taking `rows` of them."""
    self._elements = elements
    self._data = data
    self._rows = rows
    self._image_size = image_size
    self._pad_id = pad_id
    self.num_records = num_records
    self.bad = bad
    self._position = 0
    self._stream: grain.DatasetIterator[Loaded] | None = None

  def __next__(self) -> Batch:
    """Returns the next batch.

    Raises:
      EagleError: if bad records pass their budget, or no token of the batch is supervised.
    """
    if self._stream is None:
      self._stream = self._open()
    rows = [self._take(next(self._stream)) for _ in range(self._rows)]
    made = batch.collate(
      rows,
      lengths=(self._data.max_length,),
      max_images=self._data.max_images,
      image_size=self._image_size,
      pad_id=self._pad_id,
    )
    batch.demand_targets(made, f"batch {self._position // self._rows} of this process")
    self._position += self._rows
    return made

  def get_state(self) -> dict[str, Any]:
    """Returns the position as JSON-able data: rows given so far."""
    return {"position": self._position}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position that `get_state` returned, of any iterator over the same data."""
    self.close()
    self._position = int(state["position"])

  def close(self) -> None:
    """Ends reading ahead; the next batch starts it again."""
    if self._stream is not None:
      self._stream.close()
      self._stream = None

  def _open(self) -> grain.DatasetIterator[Loaded]:
    """Starts reading at the position."""
    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(
      num_threads=threads, prefetch_buffer_size=max(threads, 2 * self._rows)
    )
    stream = self._elements[self._position :].to_iter_dataset(options)
    if self._data.workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers inherit absl flags and insist on this
      stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._data.workers))
    return iter(stream)

  def _take(self, loaded: Loaded) -> batch.Row:
    """Counts the bad records of an element and returns its row."""
    for fault in loaded.faults:
      self.bad.note(fault)
    self.bad.check()
    if loaded.row is None:
      raise EagleError(
        f"{len(loaded.faults)} records in a row are unusable, the last: {loaded.faults[-1]}"
      )
    return loaded.row


def make_iterator(
  data: config.Data,
  *,
  batch_size: int,
  seed: int,
  image_size: int,
  tokens_per_image: int,
  process_index: int = 0,
  process_count: int = 1,
) -> BatchIterator:
  """Reads and checks the records, and returns the batches of this process.

  Args:
    data: where records, pictures and tokenizer are, and how they become rows.
    batch_size: rows per step over all processes.
    seed: of the order of records; every epoch has another order.
    image_size: pixels per side of the batch's pictures.
    tokens_per_image: N, positions a picture takes in its row.
    process_index: this process, from 0.
    process_count: processes that share each step's rows.

  Raises:
    EagleError: if a file is not there, too many records are unusable, the template needs
      a token that the vocabulary lacks, or the batch size is no multiple of the process
      count.
  """
  if batch_size % process_count:
    raise EagleError(
      f"batch_size must be a multiple of the process count: {batch_size}, {process_count}"
    )
  tokenizer = tokenize.load(data.tokenizer)
  tokenize.demand_specials(tokenizer, conversation.template(data.template))
  found, bad = records.load(
    data.records, data.images, budget=data.bad_budget, max_images=data.max_images
  )
  loader = Loader(
    found, data, tokenizer=tokenizer, image_size=image_size, tokens_per_image=tokens_per_image
  )
  order = grain.MapDataset.range(len(found)).seed(seed).shuffle().repeat()
  return BatchIterator(
    order[process_index::process_count].map(loader),
    data,
    rows=batch_size // process_count,
    image_size=image_size,
    pad_id=tokenizer.pad_id,
    num_records=len(found),
    bad=bad,
  )
