"""Read the word, read the row: real words and digits in the fonts matplotlib ships.

The words are those that most of scikit-learn's data set descriptions use; the fonts of
the test part are of a family that training never shows.

Source: scikit-learn, datasets/descr/*.rst (BSD-3-Clause); matplotlib, mpl-data/fonts/ttf
(DejaVu, BaKoMa Computer Modern and STIX, under their own free licences).
"""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eagle_jax.demo.extras import shipped
from eagle_jax.demo.items import SIDE, Item

WORD_TASK, ROW_TASK = "words", "rows"
QUESTIONS = {WORD_TASK: "Read the word.", ROW_TASK: "Read the row."}

FONTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
  "train": {
    "DejaVu Sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
    "DejaVu Serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    "DejaVu Mono": ("DejaVuSansMono", "DejaVuSansMono-Bold"),
    "Computer Modern": ("cmr10", "cmb10", "cmss10", "cmtt10"),
  },
  "test": {"STIX General": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic")},
}
"""Font family → its files, by part."""

DOCUMENTS = (
  "breast_cancer",
  "california_housing",
  "covtype",
  "diabetes",
  "digits",
  "iris",
  "kddcup99",
  "lfw",
  "linnerud",
  "olivetti_faces",
  "rcv1",
  "species_distributions",
  "twenty_newsgroups",
  "wine_data",
)
"""Descriptions that scikit-learn ships beside its data sets, without the suffix."""

WORDS = 48
"""Different words, the commonest first."""

LETTERS = (3, 4)
"""Least and most letters of a word."""

ROW = (2, 3)
"""Least and most digits of a row."""

SIZES = (18, 27)
"""Least and largest font size in pixels, where the text fits the picture."""


def words(part: str, count: int, seed: int) -> Iterator[Item]:
  """Yields `count` rendered words of a part, families of fonts in turn."""
  rng = np.random.default_rng([seed, 30 + (part == "test")])
  known = vocabulary()
  for number in range(count):
    word = known[int(rng.integers(len(known)))]
    yield _item(WORD_TASK, FONTS[part], rng, number=number, shown=word, answer=word)


def rows(part: str, count: int, seed: int) -> Iterator[Item]:
  """Yields `count` rendered rows of digits; the answer names them with spaces between."""
  rng = np.random.default_rng([seed, 40 + (part == "test")])
  for number in range(count):
    digits = [str(digit) for digit in rng.integers(0, 10, rng.integers(ROW[0], ROW[1] + 1))]
    answer = " ".join(digits)
    yield _item(ROW_TASK, FONTS[part], rng, number=number, shown="".join(digits), answer=answer)


@functools.cache
def documents() -> tuple[str, ...]:
  """Returns the texts of DOCUMENTS."""
  place = ("datasets", "descr")
  files = (shipped("sklearn", *place, f"{name}.rst") for name in DOCUMENTS)
  return tuple(file.read_text(encoding="utf-8") for file in files)


@functools.cache
def vocabulary() -> tuple[str, ...]:
  """Returns WORDS short words, those in the most documents first, ties by the alphabet."""
  # Parts of names, paths and roles are no words of the text.
  least, most = LETTERS
  pattern = re.compile(rf"(?<![\w./:-])[a-z]{{{least},{most}}}(?![\w./:-])")
  counts = collections.Counter(w for text in documents() for w in set(pattern.findall(text)))
  return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:WORDS])


def draw(text: str, font: str, rng: np.random.Generator) -> np.ndarray:
  """Returns uint8 [SIDE, SIDE, 3]: the text in dark on light, at a place and size of its own."""
  path = shipped("matplotlib", "mpl-data", "fonts", "ttf", font + ".ttf")
  left, top, right, bottom, face = 0, 0, SIDE, SIDE, _face(str(path), SIZES[0])
  # The first size drawn that fits; SIZES[0] may still be too wide for the widest words.
  for size in range(int(rng.integers(SIZES[0], SIZES[1] + 1)), 7, -1):
    face = _face(str(path), size)
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    if right - left < SIDE - 2:
      break
  x = int(rng.integers(1, SIDE - (right - left))) - left
  y = int(rng.integers(SIDE // 4, max(SIDE // 4 + 1, SIDE * 3 // 4 - (bottom - top)))) - top
  image = Image.new("L", (SIDE, SIDE), int(rng.integers(200, 256)))
  ImageDraw.Draw(image).text((x, y), text, fill=int(rng.integers(0, 60)), font=face)
  return np.asarray(image.convert("RGB"))


@functools.cache
def _face(path: str, size: int) -> ImageFont.FreeTypeFont:
  """Returns the font of a file at a size in pixels."""
  return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _item(
  task: str,
  families: Mapping[str, tuple[str, ...]],
  rng: np.random.Generator,
  *,
  number: int,
  shown: str,
  answer: str,
) -> Item:
  """Renders `shown` in a font of the families, whose turn follows from the number."""
  family = sorted(families)[number % len(families)]
  font = families[family][int(rng.integers(len(families[family])))]
  return Item(task, (f"font {family}",), QUESTIONS[task], answer, draw(shown, font, rng))
