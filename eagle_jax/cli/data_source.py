"""What `data validate`, `preview` and `stats` read: one source, or the data of a recipe."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from eagle_jax import config
from eagle_jax.cli import config as cli_config
from eagle_jax.cli.data_build import share
from eagle_jax.cli.parser import Parser, existing, positive
from eagle_jax.data import survey
from eagle_jax.errors import EagleError

MODEL = config.Model()
MAX_IMAGES = 64
"""Pictures of a record without a recipe that says how many a row may have."""


@dataclasses.dataclass(frozen=True)
class Asked:
  """What the command line asks to be read, and how.

  Attributes:
    data: sources and rules; `tokenizer` may be empty.
    image_size: pixels per side of a picture as the model takes it.
    tokens_per_image: N.
    answered: whether a record must hold an answer.
  """

  data: config.Data
  image_size: int
  tokens_per_image: int
  answered: bool

  def reader(self, *, decode: bool) -> survey.Reader:
    """Returns what reads the records; with `decode` their pictures, too."""
    return survey.Reader(
      self.data,
      image_size=self.image_size,
      tokens_per_image=self.tokens_per_image,
      decode=decode,
    )


def parser(action: str, summary: str) -> Parser:
  """Returns the parser of an action, with the flags that all of them take."""
  made = Parser(f"data {action}", summary)
  made.add_argument(
    "source", metavar="SOURCE", nargs="?", help="a file, a folder or FORMAT:PATH; or --config"
  )
  cli_config.add_flag(made, required=False)
  made.add_argument("--images", metavar="DIR", help="folder that image names are relative to")
  made.add_argument("--tokenizer", metavar="FILE", help="to count positions with")
  made.add_argument("--template", metavar="NAME", help="chat template of the conversations")
  made.add_argument(
    "--max-length", type=positive, metavar="N", help="positions of a row, the picture's included"
  )
  made.add_argument("--max-images", type=positive, metavar="N", help="more make a record bad")
  made.add_argument("--image-size", type=positive, metavar="N", help="pixels per side")
  made.add_argument(
    "--tokens-per-image", type=positive, metavar="N", help="positions that a picture takes"
  )
  made.add_argument(
    "--bad-budget", type=share, metavar="SHARE", help="share of records that may be bad"
  )
  made.add_argument(
    "--questions", action="store_true", help="records need no answer, as those of a benchmark"
  )
  return made


def write(out: pathlib.Path, text: str) -> None:
  """Writes a report, its folder made where there is none.

  Raises:
    EagleError: if the system refuses that.
  """
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
  except OSError as error:
    raise EagleError(f"--out={out} cannot be written: {error.strerror}") from None


def asked(options: Any, overrides: Sequence[str]) -> Asked:
  """Returns what is to be read: the recipe's data, and flags in place of its fields.

  Raises:
    EagleError: if there is neither source nor recipe, or a file is not there.
  """
  experiment = cli_config.optional(options.config, overrides)
  model = experiment.model if experiment else MODEL
  data = experiment.data if experiment else config.Data(max_images=MAX_IMAGES)
  if options.source:
    data = dataclasses.replace(data, records=options.source, images="", sources=())
  elif not (data.records or data.sources):
    raise EagleError("name a SOURCE of records, or with --config=NAME a recipe that names one")
  names = ("images", "tokenizer", "template", "max_length", "max_images", "bad_budget")
  given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
  data = dataclasses.replace(data, **given)
  if data.tokenizer:
    existing(data.tokenizer, what="tokenizer")
  return Asked(
    data,
    options.image_size or model.image_size,
    options.tokens_per_image or model.grid_side**2,
    not options.questions,
  )
