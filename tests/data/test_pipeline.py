import dataclasses
import itertools
import json

import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.data import ahead, build, image, pipeline
from eagle_jax.data.records import Limits
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER
from tests.datasets import record


def stream(data, *, batch_size=2, seed=0, process=(0, 1)):
  return pipeline.make_iterator(
    data,
    batch_size=batch_size,
    seed=seed,
    image_size=8,
    tokens_per_image=4,
    process_index=process[0],
    process_count=process[1],
  )


def levels(batches):
  """The pictures of a dataset are grey, ten levels per record: which records came."""
  return [int(n) // 10 for b in batches for n in b.images[:, 0, 4, 4, 0]]


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def equal(a, b):
  for name in ("images", "tokens", "valid", "loss_mask", "positions"):
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_batch_holds_pictures_and_answers_of_the_same_records(dataset, tokenizer):
  batches = stream(dataset(4))
  assert batches.num_records == 4
  made = next(batches)
  assert made.images.shape == (2, 1, 8, 8, 3)
  assert made.tokens.shape == (2, 64)
  for row, number in enumerate(levels([made])):
    answer = made.tokens[row][made.loss_mask[row]].tolist()
    assert answer == [*tokenizer.encode(f"answer {number}"), tokenizer.eos_id]
    assert (made.tokens[row] == PLACEHOLDER).sum() == 4


def test_every_epoch_has_all_records_in_another_order(dataset):
  seen = levels(take(stream(dataset(8)), 12))
  epochs = [tuple(seen[n : n + 8]) for n in (0, 8, 16)]
  assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
  assert len(set(epochs)) == 3


def test_the_seed_decides_the_order(dataset):
  data = dataset(8)
  assert levels(take(stream(data), 4)) == levels(take(stream(data), 4))
  assert levels(take(stream(data), 4)) != levels(take(stream(data, seed=1), 4))


def test_processes_share_each_step(dataset):
  data = dataset(8)
  whole = take(stream(data, batch_size=4), 3)
  parts = [take(stream(data, batch_size=4, process=(p, 2)), 3) for p in range(2)]
  for step in range(3):
    shared = levels([parts[0][step], parts[1][step]])
    assert parts[0][step].tokens.shape == (2, 64)
    assert sorted(shared) == sorted(levels([whole[step]]))


def test_the_batch_size_is_divided_by_the_processes(dataset):
  with pytest.raises(EagleError, match="3, 2"):
    stream(dataset(2), batch_size=3, process=(0, 2))


def test_template_and_vocabulary_must_fit(dataset):
  with pytest.raises(EagleError, match=r"has no token '<\|begin_of_text\|>'"):
    stream(dataset(2, template="llama3"))


@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_position_can_be_gone_back_to(dataset, before):
  data = dataset(5)
  first = stream(data)
  take(first, before)
  state = json.loads(json.dumps(first.get_state()))
  want = take(first, 3)
  fresh = stream(data)
  fresh.set_state(state)
  for a, b in zip(take(fresh, 3), want, strict=True):
    equal(a, b)
  first.set_state(state)
  equal(next(first), want[0])


def test_an_unreadable_picture_is_replaced_by_the_next_good_one_and_counted(dataset):
  data = dataset(5, broken=[2, 3], bad_budget=0.4)
  batches = stream(data)
  seen = levels(take(batches, 5))
  assert sorted(seen[:5] + seen[5:]) == sorted([0, 1, 4, 4, 4] * 2)
  assert batches.bad.by_reason == {"unreadable image": 2}
  # Resuming does not depend on which records were bad before.
  again = stream(data)
  take(again, 2)
  fresh = stream(data)
  fresh.set_state(again.get_state())
  assert levels(take(fresh, 3)) == seen[4:]


def test_the_run_stops_when_too_many_pictures_are_unreadable(dataset):
  batches = stream(dataset(5, broken=[2, 3], bad_budget=0.3))
  with pytest.raises(EagleError, match=r"2 of 5 records .*unreadable image \(2\)"):
    take(batches, 5)


def test_the_run_stops_when_no_picture_is_readable(dataset):
  batches = stream(dataset(2, broken=[0, 1], bad_budget=1.0))
  with pytest.raises(EagleError, match="2 records in a row"):
    next(batches)


def test_records_known_bad_are_left_out_before_reading(dataset):
  entries = [record("gone", "gone.png", "x"), {"conversations": []}]
  batches = stream(dataset(2, entries=entries, bad_budget=0.5))
  assert batches.num_records == 2
  assert batches.bad.by_reason == {"missing file": 1, "no turns": 1}
  assert sorted(levels([next(batches)])) == [0, 1]


def test_blank_pictures_leave_the_words(dataset):
  data = dataset(2, blank_images=True)
  made = next(stream(data))
  assert (made.images == image.MEAN_COLOUR).all()
  assert (made.tokens == PLACEHOLDER).sum() == 8


def test_text_alone_has_an_unused_slot(dataset):
  turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
  made = next(stream(dataset(0, entries=[{"id": "t", "conversations": turns}] * 2)))
  assert (made.images == image.MEAN_COLOUR).all()
  assert not (made.tokens == PLACEHOLDER).any()


def test_a_batch_without_targets_is_an_error(dataset):
  with pytest.raises(EagleError, match="batch 0 of this process: none of its 2 rows"):
    next(stream(dataset(2, max_length=5)))


def test_workers_give_the_same_batches_and_positions(dataset):
  data = dataset(5, broken=[3], bad_budget=0.5, workers=2)
  alone = stream(pipeline.config.dataclasses.replace(data, workers=0))
  shared = stream(data)
  for a, b in zip(take(shared, 4), take(alone, 4), strict=True):
    equal(a, b)
  assert shared.get_state() == alone.get_state()
  assert shared.bad.by_reason == alone.bad.by_reason == {"unreadable image": 1}
  shared.close()


def test_a_mixture_is_the_same_for_any_number_of_workers_and_batches_ahead(dataset, tmp_path):
  data = dataset(6, broken=[4], bad_budget=0.2)
  one = config.Source(records=data.records, images=data.images, weight=3.0)
  built = build.Wanted(one, Limits(1), budget=0.2, shard_bytes=1000)
  build.build(built, str(tmp_path / "shards"))
  two = config.Source(records=str(tmp_path / "shards"), weight=1.0, system="Which?")
  mixed = dataclasses.replace(data, records="", images="", sources=(one, two))
  want = take(stream(mixed), 6)
  for workers, depth in ((0, 3), (1, 0), (2, 2)):
    given = stream(dataclasses.replace(mixed, workers=workers))
    got = ahead.Ahead(given, lambda batch: batch, depth=depth)
    for a, b in zip(take(got, 3), want, strict=False):
      equal(a, b)
    state = json.loads(json.dumps(got.get_state()))
    assert state == {"position": 6, "readers": 1}
    got.close()
    got.set_state(state)
    for a, b in zip(take(got, 3), want[3:], strict=True):
      equal(a, b)
    got.close()


def test_another_mixture_goes_on_at_the_same_position(dataset):
  data = dataset(8)
  given = config.Source(records=data.records, images=data.images)
  mixed = dataclasses.replace(data, records="", images="", sources=(given, given))
  first = stream(data)
  take(first, 3)
  fresh, whole = stream(mixed), stream(mixed)
  fresh.set_state(first.get_state())
  for a, b in zip(take(fresh, 3), take(whole, 6)[3:], strict=True):
    equal(a, b)
