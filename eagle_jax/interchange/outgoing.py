"""A checkpoint back into the files that other programs read."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable

import numpy as np

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine, shards
from eagle_jax.convert.rules import Carry, Table
from eagle_jax.errors import EagleError
from eagle_jax.interchange import lineage, parts, upstream
from eagle_jax.interchange.incoming import CONFIG_FILE
from eagle_jax.model import eagle as eagle_lib


def export(
  source: str,
  target: str,
  *,
  what: str,
  experiment: config.Experiment,
  on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
  """Writes a part of a checkpoint as upstream would: safetensors, index, config, tokenizer.

  Args:
    source: a checkpoint or a run's folder.
    target: folder to make.
    what: 'whole', 'language', 'projector' or the name of an expert; or several of the
      last three with commas between, which get the names of a merged checkpoint.
    experiment: around the model that the checkpoint is of.
    on_done: called after each tensor with how many are done, and of how many.

  Returns:
    The names of the files.

  Raises:
    EagleError: if the folder exists, the checkpoint lacks a parameter of the part, or the
      disk is full.
  """
  folder = pathlib.Path(target)
  if folder.exists():
    raise EagleError(f"{target} exists already; nothing is overwritten, name a new folder")
  outgoing = tensors(source, what, experiment, to_export=True)
  dtype = outgoing[0].entry.dtype.name
  beside = _companions(source, what, experiment, dtype=dtype)
  partial = folder.with_name(folder.name + ".partial")
  try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    files = shards.write(partial, outgoing, on_done=lambda done: on_done(done, len(outgoing)))
    for name, contents in beside.items():
      (partial / name).write_bytes(contents)
    partial.rename(folder)
  except OSError as error:
    shutil.rmtree(partial, ignore_errors=True)
    raise EagleError(
      f"{target} cannot be written: {error.strerror or error}; nothing of it is left"
    ) from None
  return [*files, *beside]


def tensors(
  source: str, what: str, experiment: config.Experiment, *, to_export: bool = False
) -> list[engine.Outgoing]:
  """Returns the foreign tensors that a part of a checkpoint stands for, none of them read.

  They have the names they came in, upstream's if they were trained here.

  Args:
    source: a checkpoint or a run's folder.
    what: the part or parts.
    experiment: around the model that the checkpoint is of.
    to_export: whether the names must be such that exports have.

  Raises:
    EagleError: if the checkpoint lacks a parameter of the part.
  """
  part = parts.part(eagle_lib.build(experiment.model), what)
  came_in = checkpoint.read_meta(source).get("scheme")
  known = [s for s in part.schemes if s.exported or not to_export]
  scheme = next((s for s in known if s.name == came_in), part.schemes[0])
  table = part.table(scheme)
  params = part.select(scheme, checkpoint.open_params(source), place=source)
  carried = _carried(lineage.of(source), table, outer=part.outer)
  return engine.outgoing(table, params, carried=carried)


def _carried(
  ancestors: Iterable[lineage.Ancestor], table: Table, *, outer: str
) -> dict[str, np.ndarray]:
  """Returns name → array [...] of what came in, has no parameter, and the table knows.

  Args:
    ancestors: of a checkpoint, the nearest first.
    table: of the names that are asked for.
    outer: what stands before them where a merged checkpoint came in.
  """
  found: dict[str, np.ndarray] = {}
  for ancestor in ancestors:
    for name in ancestor.tensors.entries():
      bare = name.removeprefix(outer)
      rule, _ = table.match(bare) or (None, None)
      if isinstance(rule, Carry) and bare not in found:  # the nearest wins
        found[bare] = np.array(ancestor.tensors.read(name))
  return found


def _companions(
  source: str, what: str, experiment: config.Experiment, *, dtype: str
) -> dict[str, bytes]:
  """Returns name → contents of config.json and the tokenizer's files, if a part has them.

  They are those of the import if there was one.

  Args:
    source: checkpoint that is exported.
    what: the part or parts.
    experiment: around the model.
    dtype: of the parameters.
  """
  if what not in (parts.WHOLE, parts.LANGUAGE):
    return {}
  home = _home_of_language(source)
  found = dict(home.companions) if home else {}
  # The config.json of a merged checkpoint is not that of its language model.
  if home and home.parts != {what}:
    found.pop(CONFIG_FILE, None)
  if CONFIG_FILE not in found:
    size = eagle_lib.build(experiment.model).size
    fields = (
      upstream.write(experiment.model, size, dtype=dtype)
      if what == parts.WHOLE
      else upstream.write_language(size.language, dtype=dtype)
    )
    found[CONFIG_FILE] = json.dumps(fields, indent=2).encode() + b"\n"
  tokenizer = experiment.data.tokenizer
  if home is None and os.path.isfile(tokenizer):
    name = "tokenizer.json" if tokenizer.endswith(".json") else "tokenizer.model"
    found[name] = pathlib.Path(tokenizer).read_bytes()
  return found


def _home_of_language(source: str) -> lineage.Ancestor | None:
  """Returns the nearest import with a language model and files beside it, if there was one."""
  for ancestor in lineage.of(source):
    if {parts.WHOLE, parts.LANGUAGE} & ancestor.parts and ancestor.companions:
      return ancestor
  return None
