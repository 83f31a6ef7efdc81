import dataclasses

import numpy as np
import pytest

from eagle_jax.data import questions, tokenize, upstream
from eagle_jax.data.conversation import template
from eagle_jax.data.records import BadRecordError, Turn
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER
from tests.datasets import record

SIZES = {"image_size": 8, "tokens_per_image": 4}


def talk(*values):
  roles = ("human", "gpt") * len(values)
  turns = [{"from": role, "value": v} for role, v in zip(roles, values, strict=False)]
  return {"id": "t", "conversations": turns}


def test_the_answer_is_held_back(dataset):
  found, bad = questions.load(dataset(2))
  assert [q.truth for q in found] == ["answer 0", "answer 1"]
  assert found[0].turns == (Turn("human", "<image>\nWhat is shown?"),)
  assert [q.record.id for q in found] == ["0", "1"]
  assert len(bad) == 0


def test_earlier_answers_are_context_and_a_missing_truth_is_empty(dataset):
  entries = [talk("a", "b", "c", "d"), talk("a", "b", "c"), talk("a")]
  found, _ = questions.load(dataset(0, entries=entries))
  assert [[t.text for t in q.turns] for q in found] == [["a", "b", "c"], ["a", "b", "c"], ["a"]]
  assert [q.truth for q in found] == ["d", "", ""]


def test_prompts_are_left_padded_and_ask(dataset, tokenizer):
  data = dataset(1, entries=[talk("Which digit is this?", "7")])
  found, _ = questions.load(data)
  made = questions.prompt_batch(found, data, tokenizer, **SIZES)
  for row, asked in enumerate(found):
    want = tokenize.prompt(tokenizer, template("brief"), asked.turns).ids
    got = made.tokens[row][made.valid[row]]
    np.testing.assert_array_equal(got[got != PLACEHOLDER], want[want != PLACEHOLDER])
  assert made.valid[:, -1].all()
  assert (made.tokens[0] == PLACEHOLDER).sum() == 4
  assert made.images.shape == (2, 1, 8, 8, 3)
  fixed = questions.prompt_batch(found, data, tokenizer, lengths=(48,), **SIZES)
  assert fixed.tokens.shape == (2, 48)


def test_prompts_follow_compat_and_the_records_system_prompt(dataset, tokenizer):
  asked = talk("Is it <unk>?")
  told = [{"from": "system", "value": "Be kind."}, *asked["conversations"]]
  entries = [asked, {**asked, "conversations": told}]
  data = dataset(0, entries=entries, template="v1")
  (plain, kind), _ = questions.load(data)
  theirs = dataclasses.replace(data, compat="upstream")
  got = questions.row(plain, theirs, tokenizer, **SIZES).tokens
  want = upstream.prompt(tokenizer, template("v1"), plain.turns).ids
  np.testing.assert_array_equal(got, want)
  assert len(questions.row(plain, data, tokenizer, **SIZES).tokens) > len(got)
  text = tokenizer.decode(questions.row(kind, data, tokenizer, **SIZES).tokens.tolist())
  assert text == "Be kind. USER: Is it <unk>? ASSISTANT:"


def test_a_prompt_that_does_not_fit_is_an_error(dataset, tokenizer):
  data = dataset(1)
  found, _ = questions.load(data)
  with pytest.raises(EagleError, match="the longest allowed has 5"):
    questions.prompt_batch(found, data, tokenizer, lengths=(5,), **SIZES)


def test_the_blind_see_the_mean_colour(dataset, tokenizer):
  data = dataset(2)
  found, _ = questions.load(data)
  blind = dataclasses.replace(data, blank_images=True)
  seen = questions.prompt_batch(found, data, tokenizer, **SIZES)
  unseen = questions.prompt_batch(found, blind, tokenizer, **SIZES)
  np.testing.assert_array_equal(seen.tokens, unseen.tokens)
  assert (seen.images[0] != unseen.images[0]).any()
  np.testing.assert_array_equal(unseen.images[0], unseen.images[1])


def test_an_unreadable_picture_names_the_record(dataset, tokenizer):
  data = dataset(2, broken=[1])
  found, _ = questions.load(data)
  questions.row(found[0], data, tokenizer, **SIZES)
  with pytest.raises(BadRecordError, match=r"unreadable image: .*records\.json:2"):
    questions.row(found[1], data, tokenizer, **SIZES)


def test_bad_records_count_against_the_budget(dataset):
  data = dataset(1, entries=[record("gone", "gone.png", "x")])
  with pytest.raises(EagleError, match="1 of 2 records"):
    questions.load(data)
