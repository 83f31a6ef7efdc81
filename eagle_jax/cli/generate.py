"""`eagle-jax generate`: one question, any number of pictures, the answer on stdout.

eagle-jax generate --checkpoint=runs/finetune --image=cat.jpg --question="What is this?"
eagle-jax generate --checkpoint=Eagle-X5-7B --image=cat.jpg --question="What is this?"
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eagle_jax import config
from eagle_jax.cli import config as cli_config
from eagle_jax.cli import devices
from eagle_jax.cli.parser import Parser, existing, positive
from eagle_jax.errors import EagleError

if typing.TYPE_CHECKING:
  import jax

  from eagle_jax.data.tokenize import Tokenizer
  from eagle_jax.model.eagle import Eagle

  Load = Callable[[Eagle, jax.sharding.Mesh], dict[str, Any]]

TOKENIZERS = ("tokenizer.model", "tokenizer.json")
"""Files of a released folder, the first that is there counts."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  options, overrides = _parser(summary).read(arguments, overrides=True)
  existing(options.checkpoint, what="checkpoint")
  for path in options.image:
    existing(path, what="image")
  devices.start(options.devices)

  from eagle_jax.data import image
  from eagle_jax.infer.predictor import Predictor, Settings
  from eagle_jax.model import eagle as eagle_lib
  from eagle_jax.sharding.mesh import make_mesh

  experiment, meta, load = opened(options.checkpoint, options.config, overrides)
  tokenizer = matching_tokenizer(options.tokenizer or experiment.data.tokenizer, meta)
  pictures = [image.read(path) for path in options.image]
  eagle = eagle_lib.build(experiment.model)
  predictor = Predictor(
    eagle,
    load(eagle, make_mesh(config.Mesh())),
    tokenizer,
    data=dataclasses.replace(experiment.data, aspect=options.aspect or experiment.data.aspect),
    settings=Settings(
      max_new_tokens=options.max_new_tokens,
      rows=1,
      temperature=options.temperature,
      top_p=options.top_p,
      seed=options.seed,
    ),
  )
  print(predictor.ask(options.question, pictures))
  return 0


def _parser(summary: str) -> Parser:
  """Returns the parser of this verb."""
  parser = Parser("generate", summary)
  add = parser.add_argument
  add("--checkpoint", required=True, metavar="DIR", help="a run, a checkpoint, or a release")
  add("--question", required=True, help="in plain words; <image> marks where a picture stands")
  add("--image", action="append", default=[], metavar="FILE", help="may be given several times")
  cli_config.add_flag(parser, required=False)
  add("--tokenizer", metavar="FILE", help="where it lies now, if not where it lay in training")
  add("--aspect", choices=("pad", "square"), help="instead of the config's")
  add("--max-new-tokens", type=positive, default=128, metavar="N", help="128 by default")
  add("--temperature", type=_number, default=0.0, metavar="T", help="0, the default: no chance")
  add("--top-p", type=_number, default=1.0, metavar="P", help="share of the probability drawn from")
  add("--seed", type=int, default=0, help="of the draws")
  devices.add_flag(parser)
  return parser


def _number(text: str) -> float:
  """Reads a number; argparse would name the Python type in its complaint."""
  try:
    return float(text)
  except ValueError:
    raise argparse.ArgumentTypeError(f"must be a number, it is {text!r}") from None


def opened(
  path: str, name: str | None, overrides: Sequence[str]
) -> tuple[config.Experiment, Mapping[str, Any], Load]:
  """Returns the experiment of a checkpoint, what it says of itself, and how its parameters load.

  Args:
    path: a checkpoint, a run's folder, or foreign files of a whole model.
    name: of the recipe that is to be used instead of what the checkpoint says.
    overrides: of the recipe.

  Raises:
    EagleError: if nothing says what model it is, or it does not fit that model.
  """
  from eagle_jax import checkpoint
  from eagle_jax.infer import load
  from eagle_jax.interchange import incoming, parts

  if checkpoint.is_checkpoint(path):
    meta = checkpoint.read_meta(path)
    experiment = cli_config.described(name, overrides, meta)
    whole = experiment.mesh.whole
    return experiment, meta, lambda eagle, mesh: load.params(path, eagle, mesh, whole=whole)
  conversion = incoming.plan(path, parts.WHOLE, cli_config.optional(name, overrides))
  experiment = conversion.experiment
  beside = [os.path.join(path, file) for file in TOKENIZERS]
  tokenizer = experiment.data.tokenizer or next(filter(os.path.isfile, beside), "")
  data = dataclasses.replace(experiment.data, tokenizer=tokenizer)
  return (
    dataclasses.replace(experiment, data=data),
    {},
    lambda eagle, mesh: load.foreign(
      conversion.plan, conversion.source, eagle, mesh=mesh, whole=experiment.mesh.whole
    ),
  )


def matching_tokenizer(path: str, meta: Mapping[str, Any]) -> Tokenizer:
  """Returns the tokenizer of a file, which must be the one the checkpoint was trained with.

  Raises:
    EagleError: if there is none or it is another one.
  """
  from eagle_jax.data import tokenize

  if not path:
    raise EagleError("the config names no tokenizer; use --tokenizer=FILE")
  tokenizer = tokenize.load(existing(path, what="tokenizer"))
  trained = meta.get("tokenizer", tokenizer.digest)
  if tokenizer.digest != trained:
    raise EagleError(
      f"the checkpoint was trained with the tokenizer of SHA-256 {trained[:12]}…, "
      f"{path!r} has {tokenizer.digest[:12]}…"
    )
  return tokenizer
