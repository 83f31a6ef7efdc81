import collections
import itertools

import grain
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.data import mixture, order, sampler
from eagle_jax.data.records import Record, Turn


class Counted:
  """A source of so many records, the n-th with n + 1 words, each second one with a picture."""

  licence = ""

  def __init__(self, count):
    self.count = count

  def __len__(self):
    return self.count

  def __getitem__(self, number):
    question = "<image>" if number % 2 else "What?"
    turns = (Turn("human", question), Turn("gpt", " ".join(["word"] * number)))
    return Record("", (), turns, "f", number + 1)

  def place(self, number):
    return f"f:{number + 1}"


def mixed(*counts, **fields):
  """A mixture of sources with so many records; a field's values are those of the sources."""
  given = [
    config.Source(records="x", **{name: values[n] for name, values in fields.items()})
    for n in range(len(counts))
  ]
  return mixture.Mixture([Counted(count) for count in counts], given)


def first(numbers, count):
  return [int(numbers[n]) for n in range(count)]


def test_one_source_is_in_the_order_it_always_was():
  plain = grain.MapDataset.range(11).seed(5).shuffle().repeat()
  assert first(order.shuffled(mixed(11), 5), 40) == first(plain, 40)


def test_without_weights_an_epoch_has_every_record_once():
  found = mixed(5, 7)
  numbers = first(order.shuffled(found, 0), 24)
  assert sorted(numbers[:12]) == sorted(numbers[12:]) == list(range(12))
  assert numbers[:12] != numbers[12:]


def test_a_cap_takes_a_sample_that_stays():
  found = mixed(50, 4, cap=(6, 0))
  assert found.epoch == 10
  epochs = [first(order.shuffled(found, 3), 30)[n : n + 10] for n in (0, 10, 20)]
  drawn = {tuple(sorted(epoch)) for epoch in epochs}
  assert len(drawn) == 1
  assert drawn.pop()[6:] == (50, 51, 52, 53)
  assert len(set(map(tuple, epochs))) == 3
  assert set(first(order.shuffled(found, 4), 10)) != set(epochs[0])


def test_weights_are_kept_to_and_each_source_goes_through_its_own_epochs():
  found = mixed(3, 100, weight=(3.0, 1.0))
  numbers = first(order.shuffled(found, 0), 80)
  assert collections.Counter(n < 3 for n in numbers) == {True: 60, False: 20}
  small = [n for n in numbers if n < 3]
  assert all(sorted(small[n : n + 3]) == [0, 1, 2] for n in range(0, 60, 3))
  assert len({n for n in numbers if n >= 3}) == 20


def test_the_order_is_a_function_of_the_position_alone():
  for found in (mixed(9), mixed(5, 7), mixed(9, 4, weight=(1.0, 2.0))):
    numbers = order.shuffled(found, 1)
    whole = first(numbers, 30)
    assert [int(numbers[n]) for n in reversed(range(30))] == whole[::-1]
    assert first(numbers[13:], 10) == whole[13:23]
    assert first(numbers[1::3], 9) == whole[1:28:3]


@pytest.mark.parametrize("processes", [1, 2])
def test_grouped_batches_are_those_of_the_sampler(processes):
  found = mixed(10, 13)
  rows = 4 // processes
  numbers = order.grouped(found, 7, rows=rows, process_count=processes)
  lengths = [
    (1 if number % 2 else -1) * (number + 1) for number in itertools.chain(range(10), range(13))
  ]
  for epoch in range(2):
    want = sampler.order(lengths, batch_size=rows, world_size=processes, seed=7 + epoch)
    want = sampler.whole_batches(np.asarray(want), 4)
    assert len(want) == 24
    got = np.asarray(first(numbers[24 * epoch :], 24)).reshape(6, rows, processes)
    # Process p takes every P-th and so has the chunk that the sampler dealt to it.
    assert got.swapaxes(1, 2).ravel().tolist() == want.tolist()
