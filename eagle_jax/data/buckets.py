"""Batches of like rows: of one length, and without image slots where no row has a picture.

A window of whole batches is sorted by kind and cut, so that nothing is left over, a batch
is a pure function of the order of training, and a stream goes on exactly where it stood
from the number of batches given. Each kind is one compiled program: at most two for every
length, one with image slots and one without, whose step has no vision work at all.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.errors import EagleError

if typing.TYPE_CHECKING:
  from jaxtyping import Bool, Int


class Planned(NamedTuple):
  """A batch to be made.

  Attributes:
    samples: of the window, by number from 0, in order.
    length: positions S of its rows.
    pictured: whether it needs image slots.
  """

  samples: tuple[int, ...]
  length: int
  pictured: bool


def plan(
  positions: Sequence[int], images: Sequence[int], *, lengths: Sequence[int], rows: int
) -> tuple[Planned, ...]:
  """Decides which samples of a window make up which batch.

  A batch is of one kind, except where one kind ends and the next begins: such a batch
  takes the longer length, and slots if any of its rows needs them.

  Args:
    positions: of each sample, its image tokens included. Over several processes these must
      be the lengths of all their samples, as all must come to the same shapes.
    images: pictures of each sample.
    lengths: the lengths S that may occur.
    rows: of a batch, B; divides the number of samples.

  Returns:
    the batches in the order of their first samples; every sample is in one.

  Raises:
    EagleError: if a sample is longer than every length, or a batch would be left over.
  """
  if len(positions) % rows:
    raise EagleError(
      f"the window must be a multiple of the batch: {len(positions)} samples, {rows} rows"
    )
  allowed = sorted(lengths)
  sizes: Int[np.ndarray, " n"] = np.asarray(positions, np.int64)
  if len(sizes) and sizes.max() > allowed[-1]:
    raise EagleError(f"a row has {sizes.max()} positions, the longest allowed has {allowed[-1]}")
  bucket = np.searchsorted(allowed, sizes)  # the shortest length that holds each sample
  pictured: Bool[np.ndarray, " n"] = np.asarray(images, np.int64) > 0
  order = np.lexsort((bucket, pictured)).reshape(-1, rows)  # stable: kinds keep their order
  return tuple(
    sorted(
      Planned(
        tuple(np.sort(batch).tolist()), allowed[bucket[batch].max()], bool(pictured[batch].any())
      )
      for batch in order
    )
  )
