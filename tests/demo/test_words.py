import numpy as np
import pytest

from eagle_jax.demo import items, words

for package in ("sklearn", "matplotlib"):
  pytest.importorskip(package)


def _fonts(part):
  return {f"font {family}" for family in words.FONTS[part]}


def test_fonts_of_the_parts_are_different_families():
  assert not _fonts("train") & _fonts("test")
  for part in items.PARTS:
    made = [*words.words(part, 8, 0), *words.rows(part, 8, 0)]
    assert {source for item in made for source in item.sources} <= _fonts(part)


def test_the_vocabulary_is_short_words_of_the_real_texts():
  known = words.vocabulary()
  assert len(set(known)) == words.WORDS
  together = " ".join(words.documents())
  for word in known:
    assert words.LETTERS[0] <= len(word) <= words.LETTERS[1]
    assert word in together


def test_rows_are_answered_digit_by_digit():
  for item in words.rows("train", 20, 0):
    digits = item.answer.split(" ")
    assert words.ROW[0] <= len(digits) <= words.ROW[1]
    assert all(len(digit) == 1 and digit.isdigit() for digit in digits)


@pytest.mark.parametrize("text", ["made", "with", "888", "i"])
def test_text_is_dark_on_light_and_wholly_inside(text):
  rng = np.random.default_rng(0)
  for font in ("DejaVuSans-Bold", "STIXGeneral", "cmtt10"):
    pixels = words.draw(text, font, rng)
    assert pixels.shape == (items.SIDE, items.SIDE, 3)
    ink = pixels[..., 0] < 128
    assert ink.any()
    assert pixels[0].min() == pixels[-1].min() == pixels.max()


def test_the_same_seed_draws_the_same():
  first, second = (next(words.words("test", 1, 5)) for _ in range(2))
  assert first.answer == second.answer
  np.testing.assert_array_equal(first.pixels, second.pixels)
