"""The stream of batches that training reads: shuffled, split by process, resumable.

Element k of a process is a pure function of (seed, k) and of the sources: the records are
shuffled anew in every epoch, process p of P takes every P-th element from p on, and a
record whose picture turns out unreadable is replaced by the next good one. So a batch does
not depend on the number of workers, and the position in the stream is one number; where
batches are planned it is two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from eagle_jax import config
from eagle_jax.data import batch, canvas, dealing, image, mixture, order, planned, tokenize
from eagle_jax.data.batch import HostBatch
from eagle_jax.data.loader import Elements, Loader
from eagle_jax.data.mixture import Mixture
from eagle_jax.data.records import BadRecords
from eagle_jax.errors import EagleError


class Maker(Protocol):
  """A way to make batches from a stream of elements."""

  def __next__(self) -> HostBatch:
    """Returns the next batch."""

  def numbers(self, state: dict[str, Any]) -> list[int]:
    """Returns the records of the batch behind a position."""

  def get_state(self) -> dict[str, Any]:
    """Returns the position as JSON-able data."""

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position that `get_state` returned."""

  def close(self) -> None:
    """Ends reading ahead; the next batch starts it again."""


class BatchIterator(Iterator[HostBatch]):
  """Batches of this process without end; the position can be taken and gone back to.

  Attributes:
    num_records: records of one epoch over all processes.
    sources: what the records come from, with licences and shares, as JSON-able data.
    bad: the unusable ones met so far, by this process.
  """

  def __init__(self, maker: Maker, dealt: dealing.Dealing, *, found: Mixture, bad: BadRecords):
    """Starts before the first batch."""
    self._maker, self._dealt, self._found = maker, dealt, found
    self.num_records = found.epoch
    self.sources = found.describe()
    self.bad = bad

  def __next__(self) -> HostBatch:
    """Returns the next batch.

    Raises:
      EagleError: if bad records pass their budget, or no token of the batch is supervised.
    """
    return next(self._maker)

  def records(self, state: dict[str, Any]) -> list[dict[str, str]]:
    """Returns id and place of each record in this process's batch behind a position.

    Reads them once more; nothing moves.
    """
    numbers = self._maker.numbers(state)
    return [{"id": self._found[n].id, "place": self._found.place(n)} for n in numbers]

  def get_state(self) -> dict[str, Any]:
    """Returns the position as JSON-able data, without what was read ahead."""
    return self._dealt.told(self._maker.get_state())

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position that `get_state` returned, of any iterator over the same data.

    Raises:
      EagleError: if that had another number of processes, and other batches would follow.
    """
    self._maker.set_state(self._dealt.here(state))

  def adopt(self, states: Sequence[dict[str, Any]]) -> None:
    """Goes to where a run of another number of processes stood; `states` are those of all.

    Raises:
      EagleError: if other batches would follow than there.
    """
    self._maker.set_state(self._dealt.adopted(states))

  def close(self) -> None:
    """Ends reading ahead; the next batch starts it again."""
    self._maker.close()


class PlainBatches(Iterator[HostBatch]):
  """Batches of rows in the order in which they come, all of one shape."""

  def __init__(
    self, elements: Elements, data: config.Data, *, collate: Callable[..., HostBatch], rows: int
  ):
    """Starts before the first of the elements, which are rows; a batch takes `rows` of them."""
    self._elements, self._data, self._collate, self._rows = elements, data, collate, rows

  def __next__(self) -> HostBatch:
    number = self._elements.position // self._rows
    made = self._collate(
      self._elements.take(self._rows),
      lengths=(self._data.max_length,),
      max_images=self._data.max_images,
    )
    batch.demand_targets(made, f"batch {number} of this process")
    return made

  def numbers(self, state: dict[str, Any]) -> list[int]:
    """Returns the records of the batch behind a position."""
    found = self._elements.look(int(state["position"]), self._rows)
    return [loaded.number for loaded in found]

  def get_state(self) -> dict[str, Any]:
    """Returns the rows given so far."""
    return {"position": self._elements.position}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position that `get_state` returned."""
    self._elements.go_to(int(state["position"]))

  def close(self) -> None:
    """Ends reading ahead."""
    self._elements.close()


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
    process_index: of the share of each step's rows that this process reads, from 0.
    process_count: shares; usually each process has one of its own.

  Raises:
    EagleError: if a file is not there, too many records are unusable, the template needs
      a token that the vocabulary lacks, or the batch size is no multiple of the process
      count.
  """
  if batch_size % (process_count * data.share):
    raise EagleError(
      f"batch_size must be a multiple of the process count{' times data.share' * (data.share > 1)}"
      f": {batch_size}, {process_count * data.share}"
    )
  rows = batch_size // process_count
  tokenizer = tokenize.load(data.tokenizer)
  found, bad = mixture.load(data)
  loader = Loader(
    found,
    data,
    tokenizer=tokenizer,
    image_size=image_size,
    tokens_per_image=tokens_per_image,
    load=canvas.load if data.device_resize else image.load,
  )
  make: Any = loader
  if data.group:
    numbers = order.grouped(found, seed, rows=rows, process_count=process_count)
  else:
    numbers = order.shuffled(found, seed)
  plan = None
  if data.pack:
    plan = planned.packed(data, rows=rows)
  elif data.lengths:
    plan = planned.bucketed(
      data, batch_size=batch_size, process_index=process_index, process_count=process_count
    )
  if plan is not None:
    make = loader.sample
  dealt = dealing.dealing(data, epoch=found.epoch, batch_size=batch_size, readers=process_count)
  if not dealt.shared:
    numbers = numbers[process_index::process_count]
  ahead = plan.window if plan else 2 * rows
  elements = Elements(numbers.map(make), workers=data.workers, ahead=ahead, bad=bad)
  collate: Callable[..., HostBatch] = functools.partial(
    batch.on_canvas if data.device_resize else batch.collate,
    image_size=image_size,
    pad_id=tokenizer.pad_id,
  )
  maker: Maker = (
    planned.PlannedBatches(elements, loader, plan, collate=collate)
    if plan
    else PlainBatches(elements, data, collate=collate, rows=rows)
  )
  return BatchIterator(maker, dealt, found=found, bad=bad)
