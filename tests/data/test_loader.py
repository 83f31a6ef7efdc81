import dataclasses

import numpy as np
import pytest

from eagle_jax.data import loader, mixture, tokenize
from eagle_jax.data.records import Fault
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER
from tests.datasets import record


def make(data, **changes):
  data = dataclasses.replace(data, **changes)
  found, _ = mixture.load(data)
  tokenizer = tokenize.load(data.tokenizer)
  return loader.Loader(found, data, tokenizer=tokenizer, image_size=8, tokens_per_image=4)


def test_a_sample_is_as_long_as_the_row_it_becomes(dataset):
  words = record("w", "", "Hi", "What?")
  made = make(dataset(2, entries=[{**words, "image": None}]), max_length=24)
  for number in range(3):
    row, sample = made.read(number), made.sample(number).made
    assert (sample.positions, sample.images) == (len(row.tokens), len(row.images))
    done = made.complete(sample)
    np.testing.assert_array_equal(done.tokens, row.tokens)
    np.testing.assert_array_equal(done.images, row.images)


def test_a_packed_row_takes_no_part_of_a_picture(dataset):
  data = dataset(1)
  row = make(data).read(0)
  inside = int(np.argmax(row.tokens == PLACEHOLDER)) + 2
  cut = make(data, max_length=inside)
  assert cut.sample(0).made[2:] == (inside, 1)
  whole = make(data, max_length=inside, pack=True)
  assert whole.sample(0).made[2:] == (inside - 2, 0)
  assert len(whole.complete(whole.sample(0).made).images) == 0


def test_a_bad_picture_is_found_when_it_is_read(dataset):
  made = make(dataset(2, broken=[0], bad_budget=0.5))
  sample = made.sample(0)
  assert sample.faults == ()
  fault = made.complete(sample.made)
  assert isinstance(fault, Fault)
  assert fault.reason == "unreadable image"
  assert made(0).made.images[0, 0, 0, 0] == 122
  assert made(0).faults == (fault,)


def test_what_has_no_device_gets_squares_whatever_the_data_says(dataset):
  data = dataset(1)
  plain, given = make(data).read(0), make(data, device_resize=True).read(0)
  np.testing.assert_array_equal(given.images, plain.images)


def test_upstreams_masks_are_asked_for_by_name(dataset):
  data = dataset(1, template="v1", max_length=128)
  plain, theirs = make(data).read(0), make(data, compat="upstream").read(0)
  # Theirs counts the begin token that splitting adds, so both agree on one round.
  np.testing.assert_array_equal(plain.tokens, theirs.tokens)
  np.testing.assert_array_equal(plain.loss_mask, theirs.loss_mask)
  with pytest.raises(EagleError, match=r"needs a data\.template that the original has"):
    make(data, compat="upstream", template="brief")


def test_upstreams_cut_may_take_a_picture_along(dataset):
  data = dataset(1, template="v1")
  made = make(data, compat="upstream", max_length=10)
  assert made.sample(0).made[2:] == (10, 0)
  assert len(made.read(0).images) == 0


def test_a_sources_system_prompt_is_written(dataset, tokenizer):
  data = dataset(1, template="v1", max_length=256)
  given = mixture.listed(data)[0]
  told = dataclasses.replace(given, system="Which digit is this?")
  row = make(data, records="", images="", sources=(told,)).read(0)
  text = tokenizer.decode(row.tokens[row.tokens != PLACEHOLDER].tolist())
  assert text.startswith("Which digit is this? USER: ")
