"""Several sources as one: their records numbered through, and what each brings along."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from eagle_jax import config
from eagle_jax.data import sources
from eagle_jax.data.conversation import Template
from eagle_jax.data.records import BadRecords, Limits, Record
from eagle_jax.data.sources import Source
from eagle_jax.errors import EagleError


class Mixture:
  """The records of all sources, numbered through in the order of the sources.

  Attributes:
    sources: what each is, as configured.
  """

  def __init__(self, opened: Sequence[Source], given: Sequence[config.Source]):
    """Takes opened sources and, in the same order, what is said of them."""
    self.sources = tuple(given)
    self._opened = tuple(opened)
    self._firsts = [0, *itertools.accumulate(len(source) for source in opened)]
    counts = [len(source) for source in opened]
    self._used = [min(n, s.cap or n) for n, s in zip(counts, given, strict=True)]

  def __len__(self) -> int:
    return self._firsts[-1]

  def __getitem__(self, number: int) -> Record:
    which = self._which(number)
    record = self._opened[which][number - self._firsts[which]]
    return record._replace(system=record.system or self.sources[which].system)

  def place(self, number: int) -> str:
    """Returns where a record stands, as error messages name it."""
    which = self._which(number)
    return self._opened[which].place(number - self._firsts[which])

  def following(self, number: int) -> Iterator[int]:
    """Yields a record and those behind it in its source, round the source's end, each once."""
    which = self._which(number)
    first, end = self._firsts[which : which + 2]
    yield from range(number, end)
    yield from range(first, number)

  def _which(self, number: int) -> int:
    """Returns the source of a record; there are few of them."""
    return next(n for n, end in enumerate(self._firsts[1:]) if number < end)

  @property
  def epoch(self) -> int:
    """How many records an epoch has: all but those above a cap."""
    return sum(self._used)

  def bounds(self) -> list[tuple[int, int, int]]:
    """Returns of each source its first record, the one behind its last, and how many are used."""
    pairs = itertools.pairwise(self._firsts)
    return [(first, end, used) for (first, end), used in zip(pairs, self._used, strict=True)]

  def describe(self) -> list[dict[str, Any]]:
    """Returns what a run records of its sources, as JSON-able data."""
    weights = [source.weight for source in self.sources]
    shares = weights if any(weights) else self._used
    return [
      {
        **dataclasses.asdict(source),
        "licence": source.licence or opened.licence,
        "usable": len(opened),
        "used": used,
        "share": share / sum(shares),
      }
      for source, opened, used, share in zip(
        self.sources, self._opened, self._used, shares, strict=True
      )
    ]


def load(data: config.Data, *, answered: bool = True) -> tuple[Mixture, BadRecords]:
  """Opens every source of the data.

  Args:
    data: `sources`, or `records` and `images` as the only one.
    answered: whether records must hold an answer.

  Returns:
    the records, and the count of bad ones that goes on while they are read.

  Raises:
    EagleError: if a source cannot be opened, one holds no usable record, or too many
      records of all of them are bad.
  """
  given = listed(data)
  allowed = limits(data, answered=answered)
  opened = [sources.open_source(each.records, each.images, allowed) for each in given]
  tallies = [source.tally for source in opened]
  total = sum(map(len, opened)) + sum(map(len, tallies))
  bad = BadRecords(budget=data.bad_budget, total=total, known=tallies)
  bad.check()
  for each, source in zip(given, opened, strict=True):
    if not len(source):
      raise EagleError(f"data.records {each.records!r} holds no usable record")
  return Mixture(opened, given), bad


def listed(data: config.Data) -> tuple[config.Source, ...]:
  """Returns the sources of the data; `records` and `images` are the short form of one."""
  return data.sources or (config.Source(records=data.records, images=data.images),)


def limits(data: config.Data, *, answered: bool) -> Limits:
  """Returns what the records of the data must keep to.

  Args:
    data: slots and compat: the original knows no system message.
    answered: whether a record must hold an answer.
  """
  return Limits(data.max_images, answered, system=data.compat != "upstream")


def spoken(form: Template, record: Record) -> Template:
  """Returns the template that a record is written with: its own system prompt, or its source's.

  Of captions nothing but the pictures stands in front.
  """
  if not record.system or form.caption:
    return form
  return dataclasses.replace(form, system=record.system)
