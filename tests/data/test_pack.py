"""Packing: nothing lost, nothing too full, the same every time, and little left empty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_jax.data import batch, pack, planned
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER

P = PLACEHOLDER
N = 3  # image tokens per picture, but for the realistic lengths

SAMPLES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=60)


def row(tokens, pictures=0, level=0, targets=()):
  images = np.arange(level, level + pictures, dtype=np.uint8)[:, None, None, None]
  return batch.Row(
    np.broadcast_to(images, (pictures, 2, 2, 3)),
    np.array(tokens, np.int32),
    np.isin(np.arange(len(tokens)), targets),
  )


@settings(max_examples=60, deadline=None)
@given(SAMPLES, st.integers(40, 90), st.integers(3, 8), st.integers(1, 4))
def test_every_sample_is_in_one_row_and_no_row_or_group_is_too_full(samples, length, slots, share):
  positions, images = [p for p, _ in samples], [i for _, i in samples]
  planned = pack.plan(positions, images, length=length, slots=slots, share=share)
  assert sorted(n for members in planned for n in members) == list(range(len(samples)))
  assert len(planned) % share == 0
  for members in planned:
    assert sum(positions[n] for n in members) <= length
    assert list(members) == sorted(members)
  for first in range(0, len(planned), share):
    group = planned[first : first + share]
    assert sum(images[n] for members in group for n in members) <= slots
    assert any(group)
  if share == 1:
    assert list(planned) == sorted(planned)
  assert planned == pack.plan(positions, images, length=length, slots=slots, share=share)


def test_the_longest_come_first_and_the_rest_fills_the_gaps():
  assert pack.plan([3, 7, 5, 5], [0] * 4, length=10, slots=0) == ((0, 1), (2, 3))


def test_slots_are_shared_so_that_none_stays_empty():
  positions, images = [9, 9, 9, 9], [2, 0, 2, 0]
  assert len(pack.plan(positions, images, length=9, slots=2, share=2)) == 4
  groups = pack.deal(images, share=2, slots=2)
  assert groups == [(0, 1), (2, 3)]
  assert pack.deal([2, 2, 0], share=3, slots=3) == [(0, 2), (1,)]


def test_a_group_that_is_not_full_ends_in_empty_rows():
  planned = pack.plan([9, 9, 9], [1, 1, 1], length=9, slots=2, share=2)
  assert planned == ((0,), (2,), (1,), ())


@pytest.mark.parametrize(
  ("positions", "images", "message"),
  [([5, 11], [0, 0], "11 positions"), ([5], [3], "3 images, a packed row has 2 slots")],
)
def test_what_fits_no_row_is_an_error(positions, images, message):
  with pytest.raises(EagleError, match=message):
    pack.plan(positions, images, length=10, slots=2)


def test_a_picture_that_the_cut_goes_through_is_left_out_with_all_behind_it():
  cut = pack.whole(row([1, P, P, P, 5, P, P], pictures=3, targets=[4]), N)
  assert cut.tokens.tolist() == [1, P, P, P, 5]
  assert cut.loss_mask.tolist() == [False] * 4 + [True]
  assert len(cut.images) == 1
  uncut = row([1, P, P, P, 5], pictures=1, targets=[4])
  assert pack.whole(uncut, N).tokens.tolist() == uncut.tokens.tolist()


def test_joined_rows_keep_their_samples_in_order():
  joined = pack.join(
    [row([1, P, P, P], 1, level=5), row([2, 3], targets=[1]), row([P, P, P, 4], 1, level=7)]
  )
  assert joined.tokens.tolist() == [1, P, P, P, 2, 3, P, P, P, 4]
  assert joined.loss_mask.nonzero()[0].tolist() == [5]
  assert [picture[0, 0, 0] for picture in joined.images] == [5, 7]
  assert joined.samples == (4, 2, 4)
  empty = pack.join([])
  assert (empty.images, empty.tokens.shape, empty.samples) == ((), (0,), ())
  assert (joined.tokens.dtype, joined.loss_mask.dtype) == (np.int32, bool)
  assert (empty.tokens.dtype, empty.loss_mask.dtype) == (np.int32, bool)


def realistic(count, seed=0):
  """Positions and pictures of samples like those of Eagle1.8M, N = 1024.

  300 of 1813 are text only, as OpenHermes is; of the others 3 % have two pictures. The
  words of a sample are drawn log-normal about a median of 220 tokens with a picture and 350
  without, both with the deviation 0.9, so that the middle half of them has 120 to 400 and
  190 to 640; 45 tokens of template come on top. Rows are cut at 1024 positions beyond
  their pictures', 2048 for those without.

  Source: the counts, the table of Eagle1.8M in the paper's appendix; the lengths, a guess
  about conversations like LLaVA-1.5's, whose mean gives 1477 positions per picture.
  """
  draw = np.random.default_rng(seed)
  text_only = draw.random(count) < 300 / 1813
  words = np.exp(draw.normal(np.log(np.where(text_only, 350, 220)), 0.9))
  images = np.where(text_only, 0, 1 + (draw.random(count) < 0.03))
  cut = 1024 + 1024 * np.maximum(images, 1)
  return np.minimum(45 + words.astype(int) + 1024 * images, cut), images


@pytest.mark.parametrize(
  ("length", "slots", "share", "tokens_filled", "slots_filled"),
  [
    (4096, 3, 1, 0.95, 0.88),  # three pictures of some 1400 positions do not fill the row
    (6144, 34, 8, 0.975, 0.96),
    (8192, 6, 1, 0.97, 0.90),
    (8192, 45, 8, 0.98, 0.97),
  ],
)
def test_realistic_lengths_fill_packed_rows(length, slots, share, tokens_filled, slots_filled):
  positions, images = realistic(planned.PACKED_SAMPLES)
  rows = len(
    pack.plan(positions.tolist(), images.tolist(), length=length, slots=slots, share=share)
  )
  assert positions.sum() / (rows * length) >= tokens_filled
  assert images.sum() / (rows // share * slots) >= slots_filled
