"""EAGLE's order of samples, against what the original gave."""

import json
import pathlib

import numpy as np
import pytest

from eagle_jax.data import sampler
from eagle_jax.errors import EagleError

GOLDEN = json.loads(
  (pathlib.Path(__file__).parents[1] / "parity" / "goldens" / "sampler.json").read_text()
)


@pytest.mark.parametrize("number", range(len(GOLDEN["cases"])))
def test_the_order_is_the_originals(number):
  case = GOLDEN["cases"][number]
  found = sampler.order(
    case["lengths"],
    batch_size=case["batch_size"],
    world_size=case["world_size"],
    seed=case["seed"],
    by_modality=case["group_by_modality"],
  )
  assert found.tolist() == case["indices"]


def test_chunks_are_the_originals():
  for case in GOLDEN["split_to_even_chunks"]:
    found = sampler.even_chunks(case["indices"], case["lengths"], case["num_chunks"])
    assert found == case["chunks"]


def test_lengths_are_the_originals():
  told = GOLDEN["sample_lengths"]
  found = [
    sampler.signed_length([t["value"] for t in s["conversations"]], pictured="image" in s)
    for s in told["samples"]
  ]
  assert found == told["modality_lengths"]


def test_a_step_has_pictures_or_none_but_for_the_epochs_end():
  lengths = np.random.default_rng(0).integers(1, 90, 100) * np.where(np.arange(100) % 3, 1, -1)
  found = sampler.order(lengths.tolist(), batch_size=2, world_size=4, seed=1)
  assert sorted(found.tolist()) == list(range(100))
  steps = [{lengths[n] > 0 for n in found[s : s + 8]} for s in range(0, 100 - 16, 8)]
  assert all(len(kinds) == 1 for kinds in steps)
  assert {True} in steps
  assert {False} in steps
  again = sampler.order(lengths.tolist(), batch_size=2, world_size=4, seed=2)
  assert found.tolist() != again.tolist()


def test_the_last_batch_is_filled_from_the_beginning():
  assert sampler.whole_batches(np.array([4, 2, 0, 1, 3]), 3).tolist() == [4, 2, 0, 1, 3, 4]
  assert sampler.whole_batches(np.array([1, 0]), 2).tolist() == [1, 0]


def test_a_record_without_words_has_no_kind():
  with pytest.raises(EagleError, match="number 1 has none"):
    sampler.order([3, 0, -2], batch_size=1, world_size=1, seed=0)
