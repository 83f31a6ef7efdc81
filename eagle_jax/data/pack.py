"""Packs conversations into rows: which go together, and what the rows then hold.

A window of samples that follow each other in the order of training is packed for itself,
so a packed row is a pure function of the order, and a stream goes on exactly where it
stood from two numbers: the window, and the rows of it already given. A window is planned
from lengths alone, before any picture is decoded.

Why not Grain's packers: they pack what they are given, so pictures must be decoded first
and held for every open row, or packing comes after Grain's workers and decoding has none;
inside workers the rows depend on the number of workers. Slots cannot be shared by rows,
and fill is no better; docs/data.md has the numbers.
"""

from __future__ import annotations

import heapq
import typing
from collections.abc import Sequence

import numpy as np

from eagle_jax import config
from eagle_jax.data.batch import Row
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER

if typing.TYPE_CHECKING:
  from jaxtyping import Int

Numbers = tuple[int, ...]
"""Samples of a window, or rows of a plan, by number from 0."""


def row_shape(data: config.Data) -> tuple[int, int]:
  """Returns positions S of the longest row, and slots I of a row or of those that share theirs."""
  return data.pack_length or data.max_length, data.pack_images or data.max_images


def whole(row: Row, tokens_per_image: int) -> Row:
  """Leaves out the picture that a row's end cuts through, and those behind it.

  The k-th placeholder of a row can only take the row's k-th image token if every picture
  but the last has all its N positions. No loss changes: what is left out stands at the
  end of its conversation and holds no target.

  Args:
    row: one conversation, as `batch.row` gives it.
    tokens_per_image: N.
  """
  pictures, rest = divmod(int(np.sum(row.tokens == PLACEHOLDER)), tokens_per_image)
  end = len(row.tokens) - rest
  return Row(row.images[:pictures], row.tokens[:end], row.loss_mask[:end])


def plan(
  positions: Sequence[int],
  images: Sequence[int],
  *,
  length: int,
  slots: int,
  share: int = 1,
) -> tuple[Numbers, ...]:
  """Decides which samples of a window go into which row.

  Args:
    positions: of each sample, its image tokens included.
    images: pictures of each sample.
    length: positions S of a row.
    slots: pictures of a row, or of the rows that share slots: I.
    share: rows that follow each other and share I slots.

  Returns:
    the samples of each row; every sample once, in order within its row, rows in the order
    of their first samples. The number of rows is a multiple of `share`; with share > 1 some
    rows may be empty.

  Raises:
    EagleError: if a sample alone is too long or has too many pictures.
  """
  rows = bins(positions, images, length=length, slots=slots)
  pictures = [sum(images[n] for n in row) for row in rows]
  planned: list[Numbers] = []
  for group in deal(pictures, share=share, slots=slots):
    planned += [rows[r] for r in group] + [()] * (share - len(group))
  return tuple(planned)


def bins(
  positions: Sequence[int], images: Sequence[int], *, length: int, slots: int
) -> list[Numbers]:
  """Puts sample after sample where the least space is left over, in the better of two orders.

  The longest first is best while positions are what is scarce. Where slots are, it puts
  samples with little text together and their pictures use the slots up: then pictures as
  they come, and the longest of the others afterwards, fill the gaps better.

  Arguments and result as in `plan`, without sharing.
  """
  sizes: Int[np.ndarray, " n"] = np.asarray(positions, np.int64)
  if len(sizes) and sizes.max() > length:
    raise EagleError(f"a sample has {sizes.max()} positions, a packed row holds {length}")
  if max(images, default=0) > slots:
    raise EagleError(f"a sample has {max(images)} images, a packed row has {slots} slots")
  pictured = np.asarray(images, np.int64) > 0
  as_they_come = np.lexsort((np.where(pictured, 0, -sizes), ~pictured))  # stable
  orders = (np.argsort(-sizes, kind="stable"), as_they_come)
  tries = (_filled(sizes, images, order, length=length, slots=slots) for order in orders)
  best = next(tries)
  fewest = max(-(-int(sizes.sum()) // length), int(np.sum(2 * sizes > length)))
  if len(best) > max(fewest, -(-sum(images) // slots) if slots else 0):
    best = min(best, *tries, key=len)
  return sorted(tuple(sorted(row)) for row in best)


def _filled(
  sizes: Int[np.ndarray, " n"],
  images: Sequence[int],
  order: Int[np.ndarray, " n"],
  *,
  length: int,
  slots: int,
) -> list[list[int]]:
  """Returns the samples of each row, filled best-fit in the order given."""
  free: Int[np.ndarray, " n"] = np.full(len(sizes), length)
  places: Int[np.ndarray, " n"] = np.full(len(sizes), slots)
  members: list[list[int]] = []
  for n in order.tolist():
    used = len(members)
    fits = (free[:used] >= sizes[n]) & (places[:used] >= images[n])
    if fits.any():
      row = int(np.where(fits, free[:used], length + 1).argmin())
    else:
      row = used
      members.append([])
    free[row] -= sizes[n]
    places[row] -= images[n]
    members[row].append(n)
  return members


def deal(pictures: Sequence[int], *, share: int, slots: int) -> list[Numbers]:
  """Groups rows so that the slots suffice: those with most pictures first, each where fewest are.

  Args:
    pictures: of each row, none above `slots`.
    share: most rows of a group.
    slots: most pictures of a group.

  Returns:
    the rows of each group, every row once; groups in the order of their first rows.
  """
  count = max(-(-len(pictures) // share), -(-sum(pictures) // slots) if slots else 0)
  while (groups := _dealt(pictures, count, share=share, slots=slots)) is None:
    count += 1
  return sorted(tuple(sorted(group)) for group in groups if group)


def _dealt(
  pictures: Sequence[int], count: int, *, share: int, slots: int
) -> list[list[int]] | None:
  """Tries to deal rows into `count` groups; None where one does not fit."""
  groups: list[list[int]] = [[] for _ in range(count)]
  open_ones = [(0, group) for group in range(count)]  # a heap; equal pictures: the first group
  for row in sorted(range(len(pictures)), key=lambda r: -pictures[r]):
    if not open_ones or open_ones[0][0] + pictures[row] > slots:
      return None
    held, group = heapq.heappop(open_ones)
    groups[group].append(row)
    if len(groups[group]) < share:
      heapq.heappush(open_ones, (held + pictures[row], group))
  return groups


def join(samples: Sequence[Row]) -> Row:
  """Puts conversations into one row, in order; without any, the row is empty.

  Args:
    samples: rows of one conversation each, their pictures not cut: `whole`.
  """
  return Row(
    images=tuple(picture for s in samples for picture in s.images),
    tokens=np.concatenate([np.zeros(0, np.int32), *(s.tokens for s in samples)]),
    loss_mask=np.concatenate([np.zeros(0, bool), *(s.loss_mask for s in samples)]),
    samples=tuple(len(s.tokens) for s in samples),
  )
