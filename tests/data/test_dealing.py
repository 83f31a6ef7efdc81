"""How records are dealt, and what follows where a run goes on with more or fewer processes."""

import pytest

from eagle_jax.data import pipeline, planned
from eagle_jax.errors import EagleError
from tests.datasets import record

ROWS = 4
"""Of a batch, over all processes."""


@pytest.fixture
def mixed(dataset, monkeypatch):
  """Returns a function: six records with pictures and some without."""
  monkeypatch.setattr(planned, "BUCKETED_BATCHES", 3)

  def write(words, **fields):
    entries = [
      {**record(f"w{n}", "", "It is 7. " * (n + 1), "Which?"), "image": None} for n in range(words)
    ]
    known = {"max_length": 96, "bad_budget": 0.5, **fields}
    return dataset(6, entries=entries, **known)

  return write


def opened(data, count):
  """The streams of all processes of a run."""
  fields = {"batch_size": ROWS, "seed": 0, "image_size": 8, "tokens_per_image": 4}
  return [
    pipeline.make_iterator(data, **fields, process_index=n, process_count=count)
    for n in range(count)
  ]


def updates(run, count):
  """Of each of the next updates: what shapes all processes have, and the ids of all records."""
  found = []
  for _ in range(count):
    ids = [one["id"] for each in run for one in each.records(each.get_state())]
    made = [next(each) for each in run]
    assert sum(len(batch.tokens) for batch in made) == len(ids) == ROWS
    shapes = {(batch.tokens.shape[1], batch.images.shape[1]) for batch in made}
    found.append((shapes, sorted(ids)))
  return found


@pytest.mark.parametrize("counts", [(1, 2, 1), (4, 1, 2)])
@pytest.mark.parametrize(
  ("words", "fields"),
  [
    (7, {"broken": [2]}),
    (7, {"lengths": (48, 96)}),
    (10, {"group": "modality", "broken": [2]}),  # whole batches
    (10, {"group": "modality", "lengths": (48, 96)}),
  ],
)
def test_any_number_of_processes_goes_on_with_the_same_batches(mixed, words, fields, counts):
  data = mixed(words, **fields)
  found, states = [], []
  for count in counts:
    run = opened(data, count)
    for each in run if states else ():
      each.set_state(states[0])
    found += updates(run, 3)
    states = [each.get_state() for each in run]
  assert found == updates(opened(data, 1), 9)
  assert all(len(shapes) == 1 for shapes, _ in found)


@pytest.mark.parametrize(
  ("fields", "why"),
  [
    ({"pack": True}, "each packs the records dealt to it"),
    (
      {"group": "modality"},
      "the last batch of an epoch of 13 records, no multiple of batch_size 4",
    ),
  ],
)
def test_where_other_batches_would_follow_another_number_is_refused(mixed, fields, why):
  data = mixed(7, **fields)
  [one], [two, _] = opened(data, 1), opened(data, 2)
  with pytest.raises(
    EagleError, match=rf"read by 1 processes and are by 2 now: .*{why}.*start_from"
  ):
    two.set_state(one.get_state())


def test_the_positions_of_all_processes_are_one(mixed):
  [one] = opened(mixed(7), 1)
  for told in ({}, {"readers": 2}):  # an older version told of none
    one.adopt([{"position": 4, **told}] * 2)
    assert one.get_state() == {"position": 8, "readers": 1}
  with pytest.raises(EagleError, match="behind different batches"):
    one.adopt([{"position": 4}, {"position": 6}])
