"""EAGLE's order of training samples: batches of like length, with pictures or without.

Source: EAGLE, eagle_trainer.py, LengthGroupedSampler (LLaVA's), and the generator it draws
from: PyTorch's, a Mersenne twister seeded as NumPy's old one is.
"""

from __future__ import annotations

import heapq
import typing
from collections.abc import Iterable, Sequence

import numpy as np

from eagle_jax.errors import EagleError

if typing.TYPE_CHECKING:
  from jaxtyping import Int


def signed_length(texts: Iterable[str], *, pictured: bool) -> int:
  """Returns how many words a conversation has, negative if it has no picture.

  Args:
    texts: of all turns, as the record has them: '<image>' is a word where it stands alone.
    pictured: whether a picture belongs to it.
  """
  words = sum(len(text.split()) for text in texts)
  return words if pictured else -words


def order(
  lengths: Sequence[int],
  *,
  batch_size: int,
  world_size: int,
  seed: int,
  by_modality: bool = True,
) -> Int[np.ndarray, " n"]:
  """Returns the numbers of all samples in the order of one epoch.

  Samples are drawn at random and cut into megabatches of batch_size · world_size; each is
  sorted and dealt to the processes so that their lengths add up alike. With both kinds
  present, kinds are drawn apart and full megabatches shuffled together; the last of each
  kind, full or not, make the end of the epoch, in the order of the file.

  Args:
    lengths: of each sample, as `signed_length` counts them.
    batch_size: rows of a process in one micro-batch.
    world_size: processes times micro-batches per step.
    seed: of the epoch.
    by_modality: whether pictures and text go into different megabatches.

  Raises:
    EagleError: if a sample has no words, for its kind could not be told.
  """
  if 0 in lengths:
    place = list(lengths).index(0)
    raise EagleError(f"data.group 'modality' needs words in every record; number {place} has none")
  draw, size = np.random.RandomState(seed), batch_size * world_size
  kinds = [[n for n, length in enumerate(lengths) if length > 0]]
  kinds.append([n for n, length in enumerate(lengths) if length < 0])
  if not by_modality or not all(kinds):
    return np.asarray(_grouped(lengths, draw, size=size, world_size=world_size), np.int64)
  full, rest = [], []
  for kind in kinds:
    local = _grouped([abs(lengths[n]) for n in kind], draw, size=size, world_size=world_size)
    megabatches = _cut([kind[n] for n in local], size)
    full += megabatches[:-1]
    rest += megabatches[-1]
  shuffled = [full[n] for n in _permutation(len(full), draw)]
  return np.asarray([n for batch in [*shuffled, sorted(rest)] for n in batch], np.int64)


def whole_batches(numbers: Int[np.ndarray, " n"], rows: int) -> Int[np.ndarray, " m"]:
  """Fills an epoch's last batch of `rows` from its beginning, as Accelerate's sharding does."""
  return np.resize(numbers, -(-len(numbers) // rows) * rows)


def even_chunks(indices: Sequence[int], lengths: Sequence[int], count: int) -> list[list[int]]:
  """Deals samples to chunks of equal number, each to the one whose lengths add up to least.

  Args:
    indices: samples, the longest first.
    lengths: of all samples.
    count: chunks; if it does not divide the samples, they are dealt in turns.
  """
  if len(indices) % count:
    return [list(indices[first::count]) for first in range(count)]
  chunks: list[list[int]] = [[] for _ in range(count)]
  totals = [(0, chunk) for chunk in range(count)]  # a heap; equal totals: the first chunk
  for index in indices:
    total, chunk = heapq.heappop(totals)
    chunks[chunk].append(index)
    if len(chunks[chunk]) < len(indices) // count:
      heapq.heappush(totals, (total + lengths[index], chunk))
  return chunks


def _grouped(
  lengths: Sequence[int], draw: np.random.RandomState, *, size: int, world_size: int
) -> list[int]:
  """Returns a random order in which every `size` samples are sorted and dealt out."""
  found = []
  for megabatch in _cut(_permutation(len(lengths), draw), size):
    longest_first = sorted(megabatch, key=lambda n: -lengths[n])
    for chunk in even_chunks(longest_first, lengths, world_size):
      found += chunk
  return found


def _cut(numbers: list[int], size: int) -> list[list[int]]:
  """Cuts a list into pieces of `size`, the last as long as it comes."""
  return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def _permutation(count: int, draw: np.random.RandomState) -> list[int]:
  """Returns torch.randperm(count), for count up to 2^32 / 20."""
  numbers = list(range(count))
  drawn = draw.randint(0, 2**32, max(count - 1, 0), np.uint32).tolist()
  for n, value in enumerate(drawn):
    other = n + value % (count - n)
    numbers[n], numbers[other] = numbers[other], numbers[n]
  return numbers
