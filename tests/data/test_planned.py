import dataclasses
import itertools
import json

import numpy as np
import pytest

from eagle_jax.data import pipeline, planned
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER
from tests.datasets import record


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
  monkeypatch.setattr(planned, "PACKED_SAMPLES", 8)
  monkeypatch.setattr(planned, "BUCKETED_BATCHES", 3)


@pytest.fixture
def mixed(dataset):
  """Returns a function: six records with pictures and eight without, of many lengths."""
  words = [
    {**record(f"w{n}", "", "It is 7. " * (n + 1), "Which one?"), "image": None} for n in range(8)
  ]

  def write(**fields):
    return dataset(6, entries=words, **{"max_length": 96, "bad_budget": 0.2, **fields})

  return write


def stream(data, *, batch_size=4, process=(0, 1), seed=0):
  return pipeline.make_iterator(
    data,
    batch_size=batch_size,
    seed=seed,
    image_size=8,
    tokens_per_image=4,
    process_index=process[0],
    process_count=process[1],
  )


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def equal(a, b):
  for name in ("images", "tokens", "valid", "loss_mask", "positions", "segments"):
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def conversations(batches):
  """The supervised ids of every conversation, in the order of the stream."""
  found = []
  for batch in batches:
    segments = batch.valid.astype(int) if batch.segments is None else batch.segments
    for row, tokens, mask in zip(segments, batch.tokens, batch.loss_mask, strict=True):
      for n in range(1, row.max() + 1):
        found.append(tuple(tokens[(row == n) & mask].tolist()))
  return found


def test_packed_rows_hold_every_conversation_once_with_its_picture(mixed):
  data = mixed(pack=True, max_images=3)
  batches = take(stream(data, batch_size=1), 10)
  alone = take(stream(dataclasses.replace(data, pack=False), batch_size=2), 7)
  assert all(batch.tokens.shape == (1, 96) for batch in batches)
  assert batches[0].images.shape == (1, 3, 8, 8, 3)
  got, want = conversations(batches), conversations(alone)
  assert sorted(got[:8]) == sorted(want[:8])  # a window has the samples of the plain order
  assert max(batch.segments.max() for batch in batches) > 1
  # Each picture is grey, ten levels a record, and its answer names the record.
  levels = {}
  for batch in (*batches, *alone):
    segments = batch.valid.astype(int) if batch.segments is None else batch.segments
    for row, tokens, mask, images in zip(
      segments, batch.tokens, batch.loss_mask, batch.images, strict=True
    ):
      seen = iter(images[:, 4, 4, 0].tolist())
      for n in range(1, row.max() + 1):
        if (tokens[row == n] == PLACEHOLDER).any():
          levels.setdefault(tuple(tokens[(row == n) & mask].tolist()), set()).add(next(seen))
  assert len(levels) == 6
  assert all(len(of_one) == 1 for of_one in levels.values())


@pytest.mark.parametrize("fields", [{"pack": True, "max_images": 3}, {"lengths": (48, 96)}])
@pytest.mark.parametrize("before", [0, 2, 5])
def test_planned_batches_go_on_where_they_stood(mixed, fields, before):
  data = mixed(**fields, broken=[2])
  first = stream(data, batch_size=2)
  take(first, before)
  state = json.loads(json.dumps(first.get_state()))
  want = take(first, 4)
  fresh = stream(data, batch_size=2)
  fresh.set_state(state)
  for a, b in zip(take(fresh, 4), want, strict=True):
    equal(a, b)
  fresh.set_state(state)
  fresh.close()
  equal(next(fresh), want[0])


def test_packed_rows_may_be_longer_than_a_conversation(mixed):
  data = mixed(pack=True, max_length=24)
  longer = dataclasses.replace(data, pack_length=96, pack_images=3)
  short, long = (take(stream(each, batch_size=1), 4) for each in (data, longer))
  assert long[0].tokens.shape == (1, 96)
  assert long[0].images.shape == (1, 3, 8, 8, 3)
  kept = [set(np.bincount(batch.segments[0])[1:]) for batch in (*short, *long)]
  assert max(map(max, kept)) == 24  # where every conversation is cut, in both
  assert max(batch.segments.max() for batch in long) >= 4


def test_rows_may_share_their_slots(mixed):
  batches = take(stream(mixed(pack=True, share=2, max_images=2)), 4)
  assert all(batch.images.shape == (2, 2, 8, 8, 3) for batch in batches)
  for batch in batches:
    pictures = (batch.tokens == PLACEHOLDER).reshape(2, -1).sum(1) // 4
    assert pictures.tolist() == (batch.images[:, :, 4, 4, 0] != 122).sum(1).tolist()


def test_rows_that_share_come_in_whole_groups(mixed):
  with pytest.raises(EagleError, match=r"process count times data\.share: 3, 2"):
    stream(mixed(pack=True, share=2), batch_size=3)


def test_batches_of_one_kind_are_short_and_have_no_slots_for_nothing(mixed):
  batches = take(stream(mixed(lengths=(32, 64, 96)), batch_size=2), 21)
  shapes = {(batch.tokens.shape[1], batch.images.shape[1]) for batch in batches}
  assert {slots for _, slots in shapes} == {0, 1}
  assert len({length for length, _ in shapes}) > 1
  for batch in batches:
    assert batch.segments is None
    assert (batch.images.shape[1] > 0) == (batch.tokens == PLACEHOLDER).any()
  got = conversations(batches)
  assert {got.count(each) for each in set(got)} == {3}


def test_processes_come_to_the_same_shapes_and_share_each_batch(mixed):
  data = mixed(lengths=(32, 64, 96))
  whole = take(stream(data), 5)
  parts = [take(stream(data, process=(p, 2)), 5) for p in range(2)]
  for step in range(5):
    assert len({(made[step].tokens.shape, made[step].images.shape) for made in parts}) == 1
    shared = conversations([made[step] for made in parts])
    assert sorted(shared) == sorted(conversations([whole[step]]))


def test_grouped_batches_are_of_one_kind(mixed):
  data = mixed(group="modality")
  batches = take(stream(data, batch_size=2), 7)
  kinds = [(batch.tokens == PLACEHOLDER).any(axis=1).tolist() for batch in batches]
  assert sorted(kinds) == [[False, False]] * 4 + [[True, True]] * 3
  assert len(set(conversations(batches))) == 14
  short = take(stream(dataclasses.replace(data, lengths=(48, 96)), batch_size=2), 7)
  assert conversations(short) == conversations(batches)
  assert {batch.images.shape[1] for batch in short} == {0, 1}


def test_a_bad_picture_leaves_its_conversation_out(mixed):
  data = mixed(broken=[1])
  for fields in ({"pack": True, "max_images": 3}, {"lengths": (96,)}):
    batches = stream(dataclasses.replace(data, **fields), batch_size=2)
    got = set(conversations(take(batches, 14)))
    assert len(got - {()}) == 13
    assert batches.bad.by_reason == {"unreadable image": 1}


def test_workers_give_the_same_planned_batches(mixed):
  data = mixed(pack=True, max_images=3)
  streams = [stream(dataclasses.replace(data, workers=n)) for n in range(3)]
  for batches in zip(*(take(each, 3) for each in streams), strict=True):
    equal(batches[0], batches[1])
    equal(batches[0], batches[2])
  assert streams[0].get_state() == streams[1].get_state() == streams[2].get_state()
  for each in streams:
    each.close()
