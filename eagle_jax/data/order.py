"""Which record comes when: a pure function of seed, position and mixture.

Without weights an epoch has every record once, or of a source with a cap as many as that
says. With weights the sources take turns in proportion, each in an order of its own that is
new in each of its epochs. Grouped, an epoch has EAGLE's batches of one modality and like
length.
"""

from __future__ import annotations

import functools
import itertools
import sys
import typing
from collections.abc import Sequence

import grain
import numpy as np

from eagle_jax.data import sampler
from eagle_jax.data.mixture import Mixture
from eagle_jax.data.records import IMAGE, BadRecordError

if typing.TYPE_CHECKING:
  from jaxtyping import Int


def shuffled(found: Mixture, seed: int) -> grain.MapDataset[int]:
  """Returns the numbers of records in the order of training, without end.

  Args:
    found: the records.
    seed: of the order.
  """
  weights = [source.weight for source in found.sources]
  if any(weights):
    parts = [
      grain.MapDataset.range(first, end).seed((seed + n) % 2**32).shuffle().repeat()
      for n, (first, end, _) in enumerate(found.bounds())
    ]
    return grain.MapDataset.mix(parts, weights=weights)
  places = grain.MapDataset.range(found.epoch).seed(seed).shuffle().repeat()
  return places.map(_Chosen(found, seed))


def grouped(found: Mixture, seed: int, *, rows: int, process_count: int) -> grain.MapDataset[int]:
  """Returns the numbers of records in EAGLE's order of batches, without end.

  Reads every record of an epoch once, to count its words.

  Args:
    found: the records, of sources without weights.
    seed: of the first epoch; each next one takes the next seed.
    rows: of a process in a batch.
    process_count: processes that share a batch.

  Returns:
    as the other orders: process p takes every `process_count`-th from p on.

  Raises:
    EagleError: if a record has no words.
  """
  numbers = list(map(_Chosen(found, seed), range(found.epoch)))
  lengths = np.fromiter((_words(found, number) for number in numbers), np.int32, len(numbers))
  order = _Grouped(numbers, lengths, rows=rows, process_count=process_count, seed=seed)
  return grain.MapDataset.range(sys.maxsize).map(order)


class _Chosen:
  """Place in an epoch, sources one after the other → number of a record."""

  def __init__(self, found: Mixture, seed: int):
    """Draws the samples of sources with a cap."""
    self._bounds, self._parts = [0], []
    for first, end, used in found.bounds():
      numbers = grain.MapDataset.range(first, end)
      # The first of a fixed shuffle: a sample that is the same in every epoch.
      self._parts.append(numbers.seed(seed).shuffle() if used < end - first else numbers)
      self._bounds.append(self._bounds[-1] + used)

  def __call__(self, place: int) -> int:
    ends = itertools.islice(self._bounds, 1, None)
    which = next(n for n, end in enumerate(ends) if place < end)
    return int(self._parts[which][place - self._bounds[which]])


def _words(found: Mixture, number: int) -> int:
  """Returns the signed length of a record; one that cannot be read will be replaced."""
  try:
    record = found[number]
  except BadRecordError:
    return 1
  texts = [turn.text for turn in record.turns]
  return sampler.signed_length(texts, pictured=any(IMAGE in text for text in texts))


class _Grouped:
  """Place in the stream → number of a record."""

  def __init__(
    self,
    numbers: Sequence[int],
    lengths: Int[np.ndarray, " n"],
    *,
    rows: int,
    process_count: int,
    seed: int,
  ):
    """Takes the records of an epoch and their signed lengths."""
    self._numbers, self._lengths = np.asarray(numbers, np.int64), lengths
    self._rows, self._processes, self._seed = rows, process_count, seed
    batch = rows * process_count
    self._epoch = -(-len(self._numbers) // batch) * batch

  def __call__(self, place: int) -> int:
    epoch, at = divmod(place, self._epoch)
    batch, inside = divmod(at, self._rows * self._processes)
    # The order deals a batch out in chunks, one for a process; here they take turns.
    row, process = divmod(inside, self._processes)
    dealt = (batch * self._processes + process) * self._rows + row
    return int(self._numbers[_epoch_order(self, epoch)[dealt]])

  def drawn(self, epoch: int) -> Int[np.ndarray, " m"]:
    """Returns the samples of an epoch in order, its last batch filled up."""
    found = sampler.order(
      self._lengths.tolist(),
      batch_size=self._rows,
      world_size=self._processes,
      seed=(self._seed + epoch) % 2**32,
    )
    return sampler.whole_batches(found, self._rows * self._processes)


@functools.lru_cache(maxsize=2)
def _epoch_order(grouped: _Grouped, epoch: int) -> Int[np.ndarray, " m"]:
  """Returns `grouped.drawn(epoch)`, kept as long as an epoch is read."""
  return grouped.drawn(epoch)
