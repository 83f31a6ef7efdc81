"""Foreign weights into a checkpoint that a stage can start from."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.numpy
from numpy.typing import DTypeLike

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine, provenance, stream
from eagle_jax.convert.files import open_source
from eagle_jax.convert.schemes import Scheme
from eagle_jax.convert.source import Accompanied, Source
from eagle_jax.errors import EagleError
from eagle_jax.interchange import parts, upstream
from eagle_jax.model import eagle as eagle_lib

CONFIG_FILE = "config.json"
COMPANIONS = (
  CONFIG_FILE,
  "generation_config.json",
  "tokenizer.model",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
)
"""Files beside the weights of a Hugging Face folder that belong to the model."""

COMPANIONS_FOLDER = "companions"
"""Where a converted checkpoint keeps them."""

CARRIED_FILE = "carried.safetensors"
"""Tensors without a parameter here, kept beside the checkpoint for the way back."""


@dataclasses.dataclass(frozen=True)
class Conversion:
  """A conversion that was checked and not yet carried out.

  Attributes:
    origin: file or folder that was named.
    source: the foreign tensors.
    experiment: around the model they belong to.
    what: which part of it they are.
    scheme: in whose names they come.
    plan: where each of them goes.
    fresh: path of a parameter that no such file holds → why.
  """

  origin: pathlib.Path
  source: Source
  experiment: config.Experiment
  what: str
  scheme: Scheme
  plan: engine.Plan
  fresh: Mapping[str, str]


def plan(path: str, what: str, experiment: config.Experiment | None = None) -> Conversion:
  """Decides how a foreign file or folder becomes parameters; reads no more than headers.

  Args:
    path: of a .safetensors, .bin, .pth, .gguf or .npz file, or of a folder.
    what: 'whole', 'language', 'projector' or the name of an expert, or several of the
      latter with commas between; of a merged checkpoint no other part is taken.
    experiment: around the model; by default the folder's own config.json says what it is.

  Raises:
    EagleError: if the files are damaged, or do not fit the model: one error for all breaches.
  """
  origin = pathlib.Path(path)
  source = open_source(origin)
  described = experiment or describe(origin, source)
  merged = parts.is_merged(source.entries())
  part = parts.part(eagle_lib.build(described.model), what, merged=merged)
  scheme = part.recognise(source.entries(), place=source.description)
  abstract, fresh = part.targets(scheme)
  made = engine.plan(source, part.table(scheme), abstract)
  scheme.check(part.size, source)
  return Conversion(origin, source, described, what, scheme, made, fresh)


def describe(folder: pathlib.Path, source: Source) -> config.Experiment:
  """Returns an experiment around the model that a folder's config.json describes.

  Raises:
    EagleError: if there is none, or it is not that of a merged checkpoint.
  """
  place = folder / CONFIG_FILE
  if not place.is_file():
    raise EagleError(
      f"{folder} holds no {CONFIG_FILE} that says what model it is; use --config=NAME"
    )
  try:
    values = json.loads(place.read_bytes())
  except ValueError as error:
    raise EagleError(f"{place} is not readable as JSON: {error}") from None
  if not isinstance(values, dict):
    raise EagleError(f"{place} must hold a JSON object, it holds a {type(values).__name__}")
  model = upstream.read(values, rows=upstream.rows_of(source.entries()), place=str(place))
  return config.Experiment(name="converted", model=model)


def save(
  conversion: Conversion,
  target: str,
  *,
  dtype: DTypeLike | None = None,
  on_done: Callable[[int, int], None] = lambda done, total: None,
) -> None:
  """Converts slice by slice into a new checkpoint; interrupted and run again, it goes on.

  Args:
    conversion: from `plan`.
    target: folder of the checkpoint, must not exist yet.
    dtype: of the parameters; None keeps what the source has.
    on_done: called after each tensor with how many are done, and of how many.

  Raises:
    EagleError: if the folder exists, the source is damaged or the disk full.
  """
  plan, source = conversion.plan, conversion.source
  beside = companions(conversion.origin)
  if isinstance(source, Accompanied):
    beside |= source.companions()
  layouts = stream.layouts_of(plan, dtype)
  identity = stream.identity(plan, source, layouts, stamp=stamp(conversion.origin))
  writer = checkpoint.Writer(target, layouts, identity=identity)
  carried = stream.run(plan, source, writer, layouts=layouts, on_done=on_done)
  meta: dict[str, Any] = {
    "kind": "converted",
    "from": os.path.abspath(conversion.origin),
    "what": conversion.what,
    "scheme": conversion.scheme.name,
    "config": dataclasses.asdict(conversion.experiment),
  }
  extra = {provenance.FILE: provenance.record(plan, source, layouts=layouts, notes=meta)}
  extra |= {f"{COMPANIONS_FOLDER}/{name}": contents for name, contents in beside.items()}
  if carried:
    extra[CARRIED_FILE] = safetensors.numpy.save(carried)
  writer.finish(meta, extra)


def stamp(path: pathlib.Path) -> str:
  """Returns name, size and time of the files at a path: another text, if they are changed."""
  files = sorted(path.iterdir()) if path.is_dir() else [path]
  told = ((file.name, file.stat()) for file in files if file.is_file())
  return ", ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in told)


def companions(path: pathlib.Path) -> dict[str, bytes]:
  """Returns name → contents of what lies beside the weights and an export gives back.

  Args:
    path: of the weights: their folder, or a file, whose neighbours are not taken.
  """
  files = (path / name for name in COMPANIONS)
  return {file.name: file.read_bytes() for file in files if file.is_file()}
