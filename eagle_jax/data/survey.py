"""What a source holds: its bad records by reason, its lengths, how well it packs.

Every record is read by the functions that training reads it with, and only numbers are
kept of it: memory grows with how many different lengths there are, and by eight bytes for the
id of each record.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from eagle_jax import config
from eagle_jax.data import batch, conversation, image, mixture, pack, sources, tokenize, upstream
from eagle_jax.data.mixture import Mixture
from eagle_jax.data.planned import PACKED_SAMPLES
from eagle_jax.data.records import BadRecordError, Fault, Record, Tally
from eagle_jax.data.tokenize import Tokenizer
from eagle_jax.types import PLACEHOLDER

_BLOCK = 64  # records read ahead
# A picture may take hundreds of megabytes while it is decoded, so no more than are busy.
_THREADS = min(16, os.cpu_count() or 1)


class Seen(NamedTuple):
  """A good record in numbers.

  Attributes:
    turns: messages of both sides.
    images: its pictures.
    positions: what it takes in a row that nothing cuts; 0 where no tokenizer is given.
    kept: positions in front of the cut, as a packed row takes them.
    pictures: pictures in front of the cut.
    targets: supervised tokens in front of the cut.
    name: 64 bits that stand for its id.
  """

  turns: int
  images: int
  positions: int = 0
  kept: int = 0
  pictures: int = 0
  targets: int = 0
  name: int = 0


class Reader:
  """Reads records as training does."""

  def __init__(
    self, data: config.Data, *, image_size: int, tokens_per_image: int, decode: bool = True
  ):
    """Opens the tokenizer, where the data names one; no record is read.

    Args:
      data: template, length, aspect and compat.
      image_size: pixels per side that pictures are made to.
      tokens_per_image: N.
      decode: whether pictures are decoded and made square, too.

    Raises:
      EagleError: if template, vocabulary and `data.compat` do not go together.
    """
    self._data, self._image_size, self._decode = data, image_size, decode
    self._tokens_per_image = tokens_per_image
    self._template = conversation.template(data.template)
    self._encode = upstream.encoder(data.compat, self._template)
    self._tokenizer = tokenize.load(data.tokenizer) if data.tokenizer else None
    if self._tokenizer:
      tokenize.demand_specials(self._tokenizer, self._template)

  def __call__(self, record: Record) -> Seen:
    """Reads one record with its pictures.

    Raises:
      BadRecordError: if it cannot be used.
    """
    if self._decode:
      for each in record.images:  # one at a time: a record may have many
        image.load([each], self._data, self._image_size, folder=record.folder)
    name = hashlib.blake2b(record.id.encode(errors="surrogatepass"), digest_size=8).digest()
    counted = Seen(len(record.turns), len(record.images), name=int.from_bytes(name))
    return self._measured(self._tokenizer, record, counted) if self._tokenizer else counted

  def _measured(self, tokenizer: Tokenizer, record: Record, counted: Seen) -> Seen:
    """Adds to the counts of a record what it takes in a row."""
    form = mixture.spoken(self._template, record)
    encoded = self._encode(tokenizer, form, record.turns, max_length=self._data.max_length)
    # Pictures without pixels, for a row is counted as it is made.
    blank = np.zeros((int(np.sum(encoded.ids == PLACEHOLDER)), 0, 0, 3), np.uint8)
    row = batch.row(encoded, blank, tokens_per_image=self._tokens_per_image)
    cut = slice(self._data.max_length)
    kept = pack.whole(batch.Row(blank, row.tokens[cut], row.loss_mask[cut]), self._tokens_per_image)
    return counted._replace(
      positions=len(row.tokens),
      kept=len(kept.tokens),
      pictures=len(kept.images),
      # The first token of a conversation is predicted from nothing.
      targets=int(np.sum(kept.loss_mask[1:])),
    )


@dataclasses.dataclass
class Summary:
  """What the records of one source, or of several, come to.

  Attributes:
    source: as configured.
    data: what rows are made by: lengths, slots, share.
    tally: bad records.
    turns: turns of a record → records.
    images: pictures of a record → records.
    positions: positions of a record that nothing cuts → records; empty without tokenizer.
    targets: supervised tokens in front of the cut, of all records.
    cut: records that are longer than a row.
    untaught: records without a target in front of the cut: a row that teaches nothing.
    rows: packed rows that the records fill.
    filled: positions used in those rows.
  """

  source: config.Source
  data: config.Data
  tally: Tally = dataclasses.field(default_factory=Tally)
  turns: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
  images: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
  positions: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
  targets: int = 0
  cut: int = 0
  untaught: int = 0
  rows: int = 0
  filled: int = 0
  _window: list[Seen] = dataclasses.field(default_factory=list)
  _names: array.array[int] = dataclasses.field(default_factory=lambda: array.array("Q"))

  @property
  def good(self) -> int:
    """How many records can be used."""
    return self.turns.total()

  @property
  def duplicates(self) -> int:
    """How many good records have the id of one before them; two ids in 2⁶⁴ are taken for one."""
    return len(self._names) - len(np.unique(np.asarray(self._names)))

  @property
  def fill(self) -> float:
    """Share of packed rows' positions that content takes, in [0, 1]."""
    return self.filled / max(1, self.rows * pack.row_shape(self.data)[0])

  def add(self, seen: Seen) -> None:
    """Counts a good record."""
    self.turns[seen.turns] += 1
    self.images[seen.images] += 1
    self._names.append(seen.name)
    if not seen.positions:
      return
    self.positions[seen.positions] += 1
    self.targets += seen.targets
    self.cut += seen.positions > self.data.max_length
    self.untaught += not seen.targets
    self._window.append(seen)
    if len(self._window) == PACKED_SAMPLES:
      self.finish()

  def finish(self) -> None:
    """Packs the records that wait for it, as training packs a window of them."""
    length, slots = pack.row_shape(self.data)
    self.rows += len(
      pack.plan(
        [seen.kept for seen in self._window],
        [seen.pictures for seen in self._window],
        length=length,
        slots=slots,
        share=self.data.share,
      )
    )
    self.filled += sum(seen.kept for seen in self._window)
    self._window.clear()


def survey(
  data: config.Data,
  reader: Reader,
  *,
  answered: bool = True,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Summary]:
  """Yields what each source of the data comes to, read from beginning to end.

  Args:
    data: its sources, limits and row length.
    reader: made for the same data.
    answered: whether a record must hold an answer.
    progress: is told how many records of a source are done, and of how many.

  Raises:
    EagleError: if a source cannot be opened. Bad records are counted, however many.
  """
  for each in mixture.listed(data):
    allowed = mixture.limits(data, answered=answered)
    opened = sources.open_source(each.records, each.images, allowed)
    summary = Summary(each, data, tally=opened.tally)
    found = Mixture([opened], [each])
    for number, seen in enumerate(_read(found, reader)):
      if isinstance(seen, Fault):
        summary.tally.add(seen)
      else:
        summary.add(seen)
      progress(number + 1, len(found))
    summary.finish()
    yield summary


def _read(found: Mixture, reader: Reader) -> Iterator[Seen | Fault]:
  """Yields every record in order as numbers, or what is wrong with it."""

  def look(number: int) -> Seen | Fault:
    """Reads one record; runs in threads."""
    try:
      return reader(found[number])
    except BadRecordError as bad:
      return Fault(found.place(number), bad.reason, bad.detail)

  with ThreadPoolExecutor(_THREADS) as pool:
    for begin in range(0, len(found), _BLOCK):
      yield from pool.map(look, range(begin, min(begin + _BLOCK, len(found))))


def quantiles(counts: collections.Counter[int], shares: Sequence[float]) -> list[int]:
  """Returns, for each share in [0, 1], the smallest value that so many do not exceed.

  Without any value the result is empty.
  """
  found = []
  for share in shares if counts else ():
    wanted, met = max(1, math.ceil(share * counts.total())), 0
    for value in sorted(counts):
      met += counts[value]
      if met >= wanted:
        found.append(value)
        break
  return found


def histogram(counts: collections.Counter[int], bins: int = 24) -> list[tuple[int, int, int]]:
  """Returns (least, greatest, how many) of at most `bins` ranges of one round width, from 0 on."""
  if not counts:
    return []
  tens = (step * 10**power for power in range(20) for step in (1, 2, 5))
  width = next(each for each in tens if max(counts) < each * bins)
  found = [0] * (max(counts) // width + 1)
  for value, count in counts.items():
    found[value // width] += count
  return [(n * width, (n + 1) * width - 1, count) for n, count in enumerate(found)]
