"""Text in place of pictures, from which the language model learns to use its context.

Stages 1 and 2 train experts and projector through a frozen language model, so it must
already answer the questions when its context holds the answer. Here SLOTS words stand
where the image tokens will stand: `seven` among others for a seven, a 4×4 grid of colour
words for a chart or a sheet of pictures, letters for a word. Nothing of the data set's
pictures goes into them. A little is ordinary text.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from eagle_jax.demo import charts, digits, pictures, words
from eagle_jax.demo.records import Entry, turns

SIDE = 4
"""Slots per side of the grid that stands for a picture."""

SLOTS = SIDE * SIDE
"""Words that stand for a picture: its number of image tokens."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOOKS = ("black", "white", "grey", "brown", "orange", "pink", "purple", "cyan")
"""Looks of a patch, beside the colours of charts."""

GROUND = ("dot", "line", "edge", "patch", "spot", "blur", "plain", "back")
"""Words for patches that say nothing."""

PASSAGE = 8
"""Words of ordinary text shown together, its answer included."""

TEXT_TASK = "text"
TEXT_QUESTION = "Go on."

Draw = Callable[[np.random.Generator], tuple[list[str], str, str]]
"""Random numbers → SLOTS words or a text, the question, the answer."""


def records(count: int, seed: int) -> Iterator[Entry]:
  """Yields `count` text-only LLaVA records; the same seed, the same records."""
  rng = np.random.default_rng([seed, 50])
  names = list(DRAWS)
  shares = np.array([SHARES[name] for name in names])
  for number, kind in enumerate(rng.choice(len(names), count, p=shares / shares.sum())):
    name = names[int(kind)]
    shown, question, answer = DRAWS[name](rng)
    yield {
      "id": f"text-{name}-{number:06}",
      "conversations": turns(message(shown, question), answer),
      "task": name,
      "sources": [],
    }


def message(shown: list[str], question: str) -> str:
  """Returns a human turn with words where a picture would stand.

  The spaces around them make the tokens before and behind exactly those that the
  template writes around image tokens.
  """
  return f" {' '.join(shown)} \n{question}"


def lines(count: int, seed: int) -> Iterator[str]:
  """Yields the text that the tokenizer is trained on: records as rendered, and documents."""
  for number, record in enumerate(records(count, seed)):
    question, answer = (turn["value"] for turn in record["conversations"])
    yield from f"USER:{question} ASSISTANT: {answer}".split("\n")
    # Letters one by one now and then, so that each becomes a piece behind a space too.
    if number % 20 == 0:
      yield " ".join(string.ascii_lowercase)
  known = prose()
  yield from (" ".join(known[n : n + PASSAGE]) for n in range(0, len(known), PASSAGE))


def single_pieces() -> tuple[str, ...]:
  """Returns the words that must each be one token behind a space, answers first."""
  answers = (*"0123456789", *pictures.ANSWERS, *charts.COLOURS)
  return (*answers, *words.vocabulary(), *DIGITS, *LOOKS, *GROUND, *string.ascii_lowercase)


@functools.cache
def prose() -> tuple[str, ...]:
  """Returns the words of the real texts in order, without tables, code and addresses."""
  plain = re.compile(r"\(?[A-Za-z][A-Za-z'-]*[.,;:)]?")
  return tuple(w for text in words.documents() for w in text.split() if plain.fullmatch(w))


def _digit(rng: np.random.Generator) -> tuple[list[str], str, str]:
  """Places one digit, as word or figure, on some slots."""
  digit = int(rng.integers(10))
  name = DIGITS[digit] if rng.random() < 0.7 else str(digit)
  return _scatter(rng, name, _filler(rng, _anything())), digits.QUESTION, str(digit)


def _chart(rng: np.random.Generator) -> tuple[list[str], str, str]:
  """Draws bars on the grid, or names them with their heights, or only the tallest."""
  colours = [str(name) for name in rng.permutation(list(charts.COLOURS))]
  form = rng.random()
  if form < 0.25:
    shown = _scatter(rng, colours[0], _filler(rng, _anything()))
    return shown, charts.QUESTION, colours[0]
  bars = int(rng.integers(3, len(colours) + 1))
  # Distinct heights for the list, any below the tallest for the grid of SIDE rows.
  heights = rng.permutation(10)[:bars] if form < 0.5 else rng.integers(0, SIDE, bars)
  tallest = int(np.argmax(heights))
  if form < 0.5:
    pairs = [(colours[n], DIGITS[heights[n]]) for n in range(bars)]
    listed = [word for pair in pairs for word in pair]
    return _inserted(rng, listed, _filler(rng)), charts.QUESTION, colours[tallest]
  heights[tallest] += int(heights[tallest] == np.sort(heights)[-2])
  shown = _filler(rng)
  for column, height in enumerate(heights):
    for row in range(SIDE - min(int(height), SIDE), SIDE):
      shown[row * SIDE + column] = colours[column]
  return shown, charts.QUESTION, colours[tallest]


def _match(rng: np.random.Generator) -> tuple[list[str], str, str]:
  """Fills the quarters of the grid with looks, one that of the first; or says the answer."""
  answer = int(rng.integers(len(pictures.ANSWERS)))
  if rng.random() < 0.3:
    shown = _scatter(rng, pictures.ANSWERS[answer], _filler(rng, _anything()))
    return shown, pictures.QUESTION, pictures.ANSWERS[answer]
  known = (*LOOKS, *charts.COLOURS) if rng.random() < 0.6 else words.vocabulary()
  looks = [str(look) for look in rng.choice(known, len(pictures.ANSWERS), replace=False)]
  ground = [word for word in (*GROUND, *LOOKS) if word not in looks]
  shown, clean = _filler(rng, ground), rng.uniform(0.8, 1.0)
  for quarter, look in enumerate((looks[answer], *looks)):
    corner = quarter // 2 * (SLOTS // 2) + quarter % 2 * (SIDE // 2)
    cells = [corner + row * SIDE + column for row in range(2) for column in range(2)]
    sure = int(rng.integers(len(cells)))
    for number, cell in enumerate(cells):
      if number == sure or rng.random() < clean:
        shown[cell] = look
  return shown, pictures.QUESTION, pictures.ANSWERS[answer]


def _word(rng: np.random.Generator) -> tuple[list[str], str, str]:
  """Spells a word somewhere, or places it whole on some slots."""
  word = str(rng.choice(words.vocabulary()))
  spelled = rng.random() < 0.6
  shown = _inserted(rng, list(word), _filler(rng)) if spelled else _scatter(rng, word, _filler(rng))
  return shown, words.QUESTIONS[words.WORD_TASK], word


def _row(rng: np.random.Generator) -> tuple[list[str], str, str]:
  """Writes two or three digits, in words or figures, among other slots."""
  row = rng.integers(0, 10, rng.integers(words.ROW[0], words.ROW[1] + 1))
  names = DIGITS if rng.random() < 0.7 else tuple(str(digit) for digit in range(10))
  shown = _inserted(rng, [names[digit] for digit in row], _filler(rng))
  return shown, words.QUESTIONS[words.ROW_TASK], " ".join(str(digit) for digit in row)


def _prose(rng: np.random.Generator) -> tuple[list[str], str, str]:
  """Cuts a passage out of the real texts, its end being the answer."""
  known = prose()
  begin, cut = int(rng.integers(len(known) - PASSAGE)), int(rng.integers(3, PASSAGE - 2))
  passage = list(known[begin : begin + PASSAGE])
  return passage[:cut], TEXT_QUESTION, " ".join(passage[cut:])


def _anything() -> tuple[str, ...]:
  """Returns the words that say nothing to a question that none of them answers."""
  return (*GROUND, *LOOKS, *(word for word in words.vocabulary() if word not in DIGITS))


def _filler(rng: np.random.Generator, known: Sequence[str] = (*GROUND, *LOOKS)) -> list[str]:
  """Returns SLOTS words of those known, up to five different ones: what says nothing."""
  kinds = rng.choice(known, int(rng.integers(1, 6)))
  return [str(word) for word in rng.choice(kinds, SLOTS)]


def _scatter(rng: np.random.Generator, word: str, slots: list[str]) -> list[str]:
  """Puts one word on a random number of slots, at least one."""
  for slot in rng.permutation(SLOTS)[: int(rng.integers(1, SLOTS + 1))]:
    slots[slot] = word
  return slots


def _inserted(rng: np.random.Generator, listed: list[str], slots: list[str]) -> list[str]:
  """Puts words on random slots in their order, mostly side by side."""
  if rng.random() < 0.7:
    places = np.arange(len(listed)) + rng.integers(SLOTS - len(listed) + 1)
  else:
    places = np.sort(rng.permutation(SLOTS)[: len(listed)])
  for place, word in zip(places, listed, strict=True):
    slots[place] = word
  return slots


DRAWS: Mapping[str, Draw] = {
  digits.TASK: _digit,
  pictures.TASK: _match,
  charts.TASK: _chart,
  words.WORD_TASK: _word,
  words.ROW_TASK: _row,
  TEXT_TASK: _prose,
}
"""Task → what draws a record of it."""

SHARES: Mapping[str, float] = {
  digits.TASK: 0.07,
  # Comparing is learned last and slowest, and the pictures' experts lean on it.
  pictures.TASK: 0.53,
  charts.TASK: 0.16,
  words.WORD_TASK: 0.07,
  words.ROW_TASK: 0.13,
  TEXT_TASK: 0.04,
}
"""Task → share of the records."""
