"""Batches that are planned: packed rows, or rows of like length.

A window of samples that follow each other is read without pictures, and what goes together
is decided from lengths alone; pictures are read when their batch is made. A picture that
turns out bad leaves its sample out: the plan stands. A batch is a pure function of the
order, and two numbers say where the stream is: where the window begins, and how much of
its plan is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from eagle_jax import config
from eagle_jax.data import batch, buckets, pack
from eagle_jax.data.batch import HostBatch, Row
from eagle_jax.data.loader import Elements, Loader, Sample
from eagle_jax.data.records import Fault

PACKED_SAMPLES = 4096
"""Samples of a window that are packed together: with 1024 two more of a hundred positions stay
empty. A run that goes on tokenises its window again, which takes seconds."""
BUCKETED_BATCHES = 32
"""Batches of a window whose samples are sorted by length and kind."""
_THREADS = 16  # that read pictures


class Piece(NamedTuple):
  """Rows of a batch that were planned together.

  Attributes:
    rows: the samples of each.
    length: positions S of a row.
    slots: pictures I of these rows, or of each of them where they do not share.
  """

  rows: tuple[tuple[Sample, ...], ...]
  length: int
  slots: int


class Plan(NamedTuple):
  """How batches are planned.

  Attributes:
    window: samples that are read together.
    pieces: of a batch.
    make: the samples of a window → its pieces, in order.
    joins: whether a row holds several conversations.
    share: rows that share image slots.
  """

  window: int
  pieces: int
  make: Callable[[Sequence[Sample]], list[Piece]]
  joins: bool
  share: int = 1


def packed(data: config.Data, *, rows: int) -> Plan:
  """Returns the plan that puts several conversations into a row.

  Args:
    data: what `pack.row_shape` says, and `share`.
    rows: of this process in a batch; a process packs its own samples.
  """

  length, slots = pack.row_shape(data)

  def make(samples: Sequence[Sample]) -> list[Piece]:
    """Packs a window."""
    found = pack.plan(
      [sample.positions for sample in samples],
      [sample.images for sample in samples],
      length=length,
      slots=slots,
      share=data.share,
    )
    made = [tuple(samples[n] for n in row) for row in found]
    groups = [tuple(made[n : n + data.share]) for n in range(0, len(made), data.share)]
    return [Piece(group, length, slots) for group in groups]

  return Plan(PACKED_SAMPLES, rows // data.share, make, joins=True, share=data.share)


def bucketed(data: config.Data, *, batch_size: int, process_index: int, process_count: int) -> Plan:
  """Returns the plan that puts samples of like length and kind into a batch.

  Every process plans the batches of all, so that they come to the same shapes, and takes
  its rows of each.

  Args:
    data: `lengths`, `max_images`; grouped batches are planned one by one.
    batch_size: rows over all processes.
    process_index: this process.
    process_count: all of them.
  """

  def make(samples: Sequence[Sample]) -> list[Piece]:
    """Sorts a window."""
    found = buckets.plan(
      [sample.positions for sample in samples],
      [sample.images for sample in samples],
      lengths=data.lengths,
      rows=batch_size,
    )
    return [
      Piece(
        tuple((samples[n],) for n in each.samples[process_index::process_count]),
        each.length,
        data.max_images if each.pictured else 0,
      )
      for each in found
    ]

  return Plan(batch_size * (1 if data.group else BUCKETED_BATCHES), 1, make, joins=False)


class PlannedBatches(Iterator[HostBatch]):
  """Planned batches of this process without end."""

  def __init__(
    self, elements: Elements, loader: Loader, plan: Plan, *, collate: Callable[..., HostBatch]
  ):
    """Starts before the first window; `elements` are samples."""
    self._elements, self._loader, self._plan = elements, loader, plan
    self._collate = collate
    self._begins, self._given = 0, 0
    self._pieces: list[Piece] = []
    self._planned: tuple[int, list[Piece]] = (-1, [])  # for whoever asks from another thread

  def __next__(self) -> HostBatch:
    """Returns the next batch.

    Raises:
      EagleError: if bad records pass their budget, or no token of the batch is supervised.
    """
    place = f"the batch behind sample {self._begins} of this process"
    pieces = [self._piece() for _ in range(self._plan.pieces)]
    made = self._collate(
      self._rows([row for piece in pieces for row in piece.rows]),
      lengths=(pieces[0].length,),
      max_images=pieces[0].slots,
      share=self._plan.share,
    )
    batch.demand_targets(made, place)
    return made

  def _piece(self) -> Piece:
    """Returns the next piece; reads and plans the next window where one is used up."""
    while self._given >= len(self._pieces):
      if self._pieces:
        self._begins, self._given = self._begins + self._plan.window, 0
      self._pieces = self._plan.make(self._elements.take(self._plan.window))
      self._planned = (self._begins, self._pieces)
    self._given += 1
    return self._pieces[self._given - 1]

  def _rows(self, planned: Sequence[Sequence[Sample]]) -> list[Row]:
    """Reads the pictures of rows and puts their conversations together."""
    with ThreadPoolExecutor(_THREADS) as pool:
      samples = [sample for row in planned for sample in row]
      done: Iterator[Row | Fault] = iter(list(pool.map(self._loader.complete, samples)))
    rows = []
    for row in planned:
      made = [next(done) for _ in row]
      self._elements.note(tuple(each for each in made if isinstance(each, Fault)))
      good = [each for each in made if isinstance(each, Row)]
      joined = self._plan.joins or not good
      rows.append(pack.join(good) if joined else good[0])
    return rows

  def numbers(self, state: dict[str, Any]) -> list[int]:
    """Returns the records of the batch behind a position; plans its window anew if need be."""
    begins, given = int(state["position"]), int(state["given"])
    count = self._plan.pieces
    found: list[Piece] = []
    while len(found) < count:
      at, pieces = self._planned
      if at != begins:
        window = self._elements.look(begins, self._plan.window)
        pieces = self._plan.make([loaded.made for loaded in window])
      found += pieces[given:]
      begins, given = begins + self._plan.window, 0
    return [each.number for piece in found[:count] for row in piece.rows for each in row]

  def get_state(self) -> dict[str, Any]:
    """Returns the position as JSON-able data."""
    return {"position": self._begins, "given": self._given}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to a position that `get_state` returned, of any iterator over the same data."""
    self._begins, self._given = int(state["position"]), int(state["given"])
    self._pieces = []
    self._elements.go_to(self._begins)

  def close(self) -> None:
    """Ends reading ahead; the next batch starts it again."""
    self.set_state(self.get_state())
