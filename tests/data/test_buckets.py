"""Batches of one length and kind."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_jax.data import buckets
from eagle_jax.errors import EagleError

LENGTHS = (24, 8, 16)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(0, 8))
def test_every_sample_is_in_one_batch_that_holds_it(data, rows, batches):
  count = rows * batches
  draw = lambda numbers: data.draw(st.lists(numbers, min_size=count, max_size=count))
  positions, images = draw(st.integers(1, 24)), draw(st.integers(0, 2))
  planned = buckets.plan(positions, images, lengths=LENGTHS, rows=rows)
  assert len(planned) == batches
  assert sorted(n for made in planned for n in made.samples) == list(range(count))
  assert list(planned) == sorted(planned)
  kinds, mixed = set(), 0
  for made in planned:
    assert list(made.samples) == sorted(made.samples)
    assert made.length == min(n for n in LENGTHS if n >= max(positions[k] for k in made.samples))
    assert made.pictured == any(images[k] for k in made.samples)
    kinds.add((made.length, made.pictured))
    own = {(min(n for n in LENGTHS if n >= positions[k]), images[k] > 0) for k in made.samples}
    mixed += len(own) > 1
  assert len(kinds) <= 2 * len(LENGTHS)
  assert mixed <= 2 * len(LENGTHS) - 1
  assert planned == buckets.plan(positions, images, lengths=LENGTHS, rows=rows)


def test_kinds_come_together_in_the_order_of_their_first_samples():
  planned = buckets.plan([7, 20, 3, 19, 8, 2], [0, 1, 0, 1, 1, 1], lengths=LENGTHS, rows=2)
  assert planned == (((0, 2), 8, False), ((1, 3), 24, True), ((4, 5), 8, True))


@pytest.mark.parametrize(
  ("positions", "message"), [([1, 2, 3], "3 samples, 2 rows"), ([1, 25], "25 positions")]
)
def test_what_makes_no_whole_batches_is_an_error(positions, message):
  with pytest.raises(EagleError, match=message):
    buckets.plan(positions, [0] * len(positions), lengths=LENGTHS, rows=2)
