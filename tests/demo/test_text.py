import itertools

import numpy as np
import pytest

from eagle_jax.demo import charts, digits, pictures, text, words

for package in ("sklearn", "skimage", "vega_datasets", "matplotlib"):
  pytest.importorskip(package)


@pytest.fixture(scope="module")
def drawn():
  rng = np.random.default_rng(0)
  return {name: [draw(rng) for _ in range(200)] for name, draw in text.DRAWS.items()}


def test_every_stand_in_has_one_word_per_image_token(drawn):
  for name, made in drawn.items():
    if name != text.TEXT_TASK:
      assert all(len(shown) == text.SLOTS for shown, _, _ in made)
      assert all(" " not in word and word for shown, _, _ in made for word in shown)


def test_digits_can_be_read_off(drawn):
  for shown, question, answer in drawn[digits.TASK]:
    assert question == digits.QUESTION
    others = {*text.DIGITS, *"0123456789"} - {answer, text.DIGITS[int(answer)]}
    assert {answer, text.DIGITS[int(answer)]} & set(shown)
    assert not others & set(shown)


def test_crops_can_be_read_off(drawn):
  places = {"right": (0, 1), "below": (1, 0), "corner": (1, 1)}
  for shown, question, answer in drawn[pictures.TASK]:
    assert question == pictures.QUESTION
    if answer in shown:
      continue
    grid = np.array(shown).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(2, 2, 4)
    nothing = {*text.GROUND, *text.LOOKS}
    common = {name: (set(grid[0, 0]) & set(grid[place])) for name, place in places.items()}
    told = {name for name, both in common.items() if both}
    assert answer in told
    # Whatever else two quarters share is ground.
    assert all(both <= nothing for name, both in common.items() if name != answer)


def test_charts_can_be_read_off(drawn):
  for shown, question, answer in drawn[charts.TASK]:
    assert question == charts.QUESTION
    listed = [word for word in shown if word in charts.COLOURS or word in text.DIGITS]
    pairs = itertools.pairwise(listed)
    numbers = [
      (text.DIGITS.index(b), a) for a, b in pairs if a in charts.COLOURS and b in text.DIGITS
    ]
    heights = {colour: shown.count(colour) for colour in charts.COLOURS if colour in shown}
    if numbers:
      assert max(numbers)[1] == answer
    else:
      assert [c for c, h in heights.items() if h == max(heights.values())] == [answer]


def test_words_and_rows_can_be_read_off(drawn):
  for shown, _, answer in drawn[words.WORD_TASK]:
    letters = [word for word in shown if len(word) == 1]
    assert answer in shown or "".join(letters) == answer
  for shown, _, answer in drawn[words.ROW_TASK]:
    names = [word for word in shown if word in text.DIGITS or word.isdigit()]
    figures = [str(text.DIGITS.index(n)) if n in text.DIGITS else n for n in names]
    assert " ".join(figures) == answer


def test_prose_goes_on_as_the_real_text_does(drawn):
  together = " ".join(text.prose())
  for shown, question, answer in drawn[text.TEXT_TASK]:
    assert question == text.TEXT_QUESTION
    assert f"{' '.join(shown)} {answer}" in together


def test_records_are_the_same_for_a_seed_and_hold_every_task():
  first, again = (list(text.records(300, 4)) for _ in range(2))
  assert first == again
  assert first != list(text.records(300, 5))
  assert {record["task"] for record in first} == set(text.DRAWS)
  assert not any("image" in record for record in first)


def test_answers_are_varied(drawn):
  assert len({answer for _, _, answer in drawn[digits.TASK]}) == 10
  assert len({answer for _, _, answer in drawn[pictures.TASK]}) == 3
  assert len({answer for _, _, answer in drawn[charts.TASK]}) == 4


def test_tokenizer_lines_hold_no_ends_of_lines():
  assert not any("\n" in line for line in text.lines(50, 0))
