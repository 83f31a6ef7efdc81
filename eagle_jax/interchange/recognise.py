"""Foreign files of which nobody said what part of the model they are."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

from eagle_jax import config
from eagle_jax.convert import schemes
from eagle_jax.convert.files import open_source
from eagle_jax.convert.source import Entry
from eagle_jax.errors import EagleError
from eagle_jax.interchange import incoming, parts
from eagle_jax.language.weights import gguf
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.model import weights
from eagle_jax.model.eagle import EagleSize

EMBEDDINGS = ("model.embed_tokens.weight", gguf.MARK)
"""What files call the embedding table (V, D)."""


def plan(path: str, experiment: config.Experiment) -> incoming.Conversion:
  """Decides how foreign files become parameters; their names tell of which part.

  What they hold need not fit the experiment's model: a merged checkpoint with a config.json
  is taken for the model described there, and the embedding for one of as many rows as its
  tensor has. So what is taken from here is to be held against the model first.

  Args:
    path: of a file or folder, as `incoming.plan` takes it.
    experiment: around the model whose part they are.

  Raises:
    EagleError: unless the files are exactly one part of the model; and as `incoming.plan`.
  """
  source = open_source(path)
  entries, size = source.entries(), eagle_lib.build(experiment.model).size
  what = part_of(size, entries, place=source.description)
  if what == parts.WHOLE and (pathlib.Path(path) / incoming.CONFIG_FILE).is_file():
    return incoming.plan(path, what)
  model = dataclasses.replace(experiment.model, vocab_rows=_rows(entries, size))
  return incoming.plan(path, what, dataclasses.replace(experiment, model=model))


def part_of(size: EagleSize, names: Iterable[str], *, place: str) -> str:
  """Returns the name of the part of a model whose tensors these are.

  Args:
    size: of the model.
    names: of all tensors of a checkpoint.
    place: how the message calls the checkpoint.

  Raises:
    EagleError: unless exactly one part fits; lists all that were tried.
  """
  held = list(names)
  if parts.is_merged(held):  # it also has what its parts are known by
    return parts.WHOLE
  known = {name: ways for name, ways in parts.schemes_of(size).items() if name != parts.WHOLE}
  found = [name for name, ways in known.items() if any(scheme.fits(held) for scheme in ways)]
  if len(found) == 1:
    return found[0]
  marks = {name: " or ".join(repr(way.mark) for way in ways) for name, ways in known.items()}
  tried = ", ".join(f"{name} has {told}" for name, told in marks.items())
  fits = f"these {len(found)}: {', '.join(found)}" if found else schemes.none_of(held)
  raise EagleError(
    f"{place} must be exactly one part of this model by the tensor each is known by "
    f"({parts.WHOLE} has '{weights.TOWERS}*', {tried}); it is {fits}"
  )


def _rows(entries: Mapping[str, Entry], size: EagleSize) -> int:
  """Returns the rows of the embedding table (V, D), the model's own where there is none."""
  table = next((entries[name] for name in EMBEDDINGS if name in entries), None)
  return table.shape[0] if table and table.shape else size.language.vocab
