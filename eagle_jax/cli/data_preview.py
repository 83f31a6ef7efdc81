"""`eagle-jax data preview`: records as the model sees them, on one HTML page.

eagle-jax data preview train.json --images=images --tokenizer=tokenizer.model --out=preview.html
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import pathlib
import typing
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from eagle_jax.cli.data_source import asked, parser, write
from eagle_jax.cli.data_validate import named
from eagle_jax.cli.parser import positive
from eagle_jax.data import mixture, tokenize
from eagle_jax.data.batch import Row
from eagle_jax.data.loader import Loader
from eagle_jax.data.records import BadRecordError, Fault
from eagle_jax.data.tokenize import Tokenizer
from eagle_jax.demo import page
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER

if typing.TYPE_CHECKING:
  from jaxtyping import Int32, UInt8

_CONTEXT = 8  # ids in front of one that its text may depend on
_STYLE = """<style>
.tokens{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;margin:.8rem 0 0;max-width:none}
.tokens span{border-radius:3px;box-shadow:inset 0 0 0 1px var(--rule);padding:.1rem 0}
.tokens .on{background:color-mix(in srgb,var(--good) 26%,transparent)}
.tokens .name{color:var(--soft);font-size:.8em;padding:.1rem .2rem}
.tokens .picture{background:var(--c0);color:var(--card);padding:.1rem .5rem}
.seen{display:flex;flex-wrap:wrap;gap:.6rem}
.seen img{width:14rem;max-width:100%;border-radius:6px;display:block}
</style>"""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the action; returns the exit code."""
  reading = parser("preview", summary)
  reading.add_argument("-n", type=positive, default=5, metavar="N", help="records shown, 5")
  reading.add_argument(
    "--first", type=positive, default=1, metavar="N", help="good record to begin with, 1"
  )
  reading.add_argument("--out", metavar="FILE", default="preview.html", help="preview.html")
  options, overrides = reading.read(arguments, overrides=True)
  given = asked(options, overrides)
  if not given.data.tokenizer:
    raise EagleError("data preview needs --tokenizer=FILE, or a recipe that names one")
  # What is wrong with the records is the business of `data validate`.
  data = dataclasses.replace(given.data, bad_budget=1.0)
  found, _ = mixture.load(data, answered=given.answered)
  if options.first > len(found):
    raise EagleError(f"--first must be at most the number of records, {len(found)}")
  tokenizer = tokenize.load(data.tokenizer)
  loader = Loader(
    found,
    data,
    tokenizer=tokenizer,
    image_size=given.image_size,
    tokens_per_image=given.tokens_per_image,
  )
  numbers = range(options.first - 1, min(options.first - 1 + options.n, len(found)))
  shown = Shown(loader, tokenizer, given.tokens_per_image)
  body = [_STYLE, "<h1>Records as the model sees them</h1>"]
  body.append(
    f'<p class="soft">{html.escape(data.template)}, rows of {data.max_length:,} positions. '
    'Targets are <span class="good">green</span>; hover over a token for its id.</p>'
  )
  body += [shown.section(number, found.place(number)) for number in numbers]
  out = pathlib.Path(options.out)
  write(out, page.page("Records as the model sees them", body))
  print(f"{out}: {len(numbers)} of {len(found):,} records")
  return 0


class Shown:
  """Draws records with the pictures, ids and targets that training reads of them."""

  def __init__(self, loader: Loader, tokenizer: Tokenizer, tokens_per_image: int):
    """Keeps what rows are made with."""
    self._loader, self._tokenizer, self._tokens_per_image = loader, tokenizer, tokens_per_image
    self._names = {number: name for name, number in tokenizer.habits.names.items()}

  def section(self, number: int, place: str) -> str:
    """Returns one record as HTML; a bad one says why it is."""
    try:
      made = self._loader.complete(self._loader.measure(number))
    except BadRecordError as bad:
      made = self._loader.fault(number, bad)
    if isinstance(made, Fault):
      told = f'<div class="card verdict bad"><p>{html.escape(named(made))}</p></div>'
      return page.section(place, "left out of training", told)
    images = int(np.sum(made.tokens == PLACEHOLDER))
    lead = (
      f"{len(made.tokens):,} positions: {images:,} for pictures, "
      f"{len(made.tokens) - images:,} for text; {int(made.loss_mask[1:].sum()):,} targets"
    )
    pictures = "".join(map(_picture, made.images))
    tokens = "".join(self._tokens(made))
    return page.section(
      place,
      lead,
      f'<div class="card"><div class="seen">{pictures}</div><p class="tokens">{tokens}</p></div>',
    )

  def _tokens(self, row: Row) -> Iterator[str]:
    """Yields every token of a row as HTML, the positions of a picture as one."""
    at, picture = 0, 0
    while at < len(row.tokens):
      if row.tokens[at] == PLACEHOLDER:
        run = row.tokens[at : at + self._tokens_per_image] == PLACEHOLDER
        length = int(run.sum()) if run.all() else int(run.argmin())
        picture += 1
        title = f"positions {at} to {at + length - 1}"
        yield (
          f'<span class="picture" title="{title}">picture {picture}: {length:,} positions</span>'
        )
        at += length
        continue
      kinds = "on " * bool(row.loss_mask[at])
      text = self.text(row.tokens, at)
      kinds += "name" * (not text)
      told = html.escape(text or self._name(int(row.tokens[at])))
      target = ", target" * bool(row.loss_mask[at])
      title = f"id {row.tokens[at]}, position {at}{target}"
      yield f'<span class="{kinds.strip()}" title="{title}">{told}</span>'
      at += 1

  def text(self, tokens: Int32[np.ndarray, " s"], at: int) -> str:
    """Returns what a token adds to the text in front of it; empty where that is no text."""
    before = tokens[max(0, at - _CONTEXT) : at].tolist()
    known = [i for i in before if i >= 0 and i not in self._names]
    prior = self._tokenizer.decode(known)
    whole = self._tokenizer.decode([*known, int(tokens[at])])
    added = whole[len(prior) :] if whole.startswith(prior) else ""
    return "".join("↵\n" if c == "\n" else c if c.isprintable() else "�" for c in added)

  def _name(self, number: int) -> str:
    """Returns how a token that is no text is called."""
    return self._names.get(number, f"⟨{number}⟩")


def _picture(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
  """Returns a picture as the model takes it, held in the page."""
  held = io.BytesIO()
  Image.fromarray(pixels).save(held, "PNG")
  side = pixels.shape[0]
  encoded = base64.b64encode(held.getvalue()).decode("ascii")
  return f'<img alt="{side} pixels per side" src="data:image/png;base64,{encoded}">'
