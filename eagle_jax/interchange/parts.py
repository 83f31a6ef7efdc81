"""The parts of the model that have checkpoints of their own, and how those name their tensors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from eagle_jax.convert import engine, schemes
from eagle_jax.convert.rules import Table
from eagle_jax.convert.schemes import Scheme
from eagle_jax.errors import EagleError
from eagle_jax.language import LlamaSize
from eagle_jax.language.weights import gguf, llama
from eagle_jax.model import weights
from eagle_jax.model.eagle import Eagle, EagleSize, abstract_params
from eagle_jax.registry import lookup
from eagle_jax.vision import EXPERTS

WHOLE, LANGUAGE, PROJECTOR = "whole", "language", "projector"
_EMBEDDING = "model.embed_tokens.weight"
_LAYER = f"{weights.PROJECTOR}*weight"
_MERGED = "model.*"


def _llama(size: LlamaSize) -> Table:
  """Returns the table of a language model in Hugging Face's names."""
  return llama.table(size.tied)


_LANGUAGE = (
  Scheme("hf", _EMBEDDING, _llama),
  Scheme("gguf", gguf.MARK, gguf.table, check=gguf.check, exported=False),
)


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of one model, and every way in which foreign files may name its tensors.

  Attributes:
    name: 'whole', 'language', 'projector' or the name of an expert, or several of these.
    prefix: of its parameters' paths, '' for the whole and for several parts.
    size: what the schemes' tables are made from.
    schemes: naming schemes; the first is the one of exports.
    leaves: '/'-joined path below the prefix → abstract parameter.
    outer: what stands before the first scheme's names in a merged checkpoint.
  """

  name: str
  prefix: str
  size: Any
  schemes: tuple[Scheme, ...]
  leaves: Mapping[str, Any]
  outer: str = ""

  def table(self, scheme: Scheme) -> Table:
    """Returns the rules from a scheme's names to the parameters of the whole model."""
    return scheme.table(self.size).prefixed("", self.prefix)

  def recognise(self, names: Iterable[str], *, place: str) -> Scheme:
    """Returns the scheme of a file by its tensor names.

    Raises:
      EagleError: unless exactly one fits.
    """
    return schemes.recognise(self.schemes, names, place=place)

  def targets(self, scheme: Scheme) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what files of a scheme fill, as a nested dictionary, and what not, with reasons."""
    kept, fresh = schemes.without_fresh(engine.unflatten(self.leaves), scheme)
    filled = {self.prefix + path: leaf for path, leaf in engine.flatten(kept).items()}
    return engine.unflatten(filled), {self.prefix + path: why for path, why in fresh.items()}

  def select(self, scheme: Scheme, held: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    """Returns what files of a scheme hold out of a checkpoint's parameters.

    Args:
      scheme: of the files.
      held: '/'-joined path → array [...].
      place: how the message calls the checkpoint.

    Raises:
      EagleError: if the checkpoint lacks a parameter.
    """
    wanted = list(engine.flatten(self.targets(scheme)[0]))
    missing = [path for path in wanted if path not in held]
    if missing:
      raise EagleError(
        f"{place} must hold all {len(wanted)} parameters of {self.name!r}, it lacks "
        f"{len(missing)}: {', '.join(missing[:5])}"
      )
    return {path: held[path] for path in wanted}


def is_merged(names: Iterable[str]) -> bool:
  """Whether tensors with these names are those of a merged checkpoint."""
  return any(name.startswith(weights.TOWERS) for name in names)


def part(eagle: Eagle, name: str, *, merged: bool = False) -> Part:
  """Returns a part of a model by name.

  Args:
    eagle: the model.
    name: 'whole', 'language', 'projector' or the name of an expert; or several of these but
      the first, with commas between them.
    merged: whether its files have the names of a merged checkpoint, whose other tensors
      are left behind; those of several parts always have.

  Raises:
    EagleError: if there is no such part; names the nearest.
  """
  known, chosen = _parts(eagle.size), tuple(name.split(","))
  found = [lookup(known, one, what="part") for one in chosen]
  if len(set(chosen)) < len(chosen) or (WHOLE in chosen and len(chosen) > 1):
    raise EagleError(f"several parts are each named once, and {WHOLE!r} is none: {name!r}")
  (prefix, size, ways, outer), *_ = found
  inner = [path for path, *_ in found]
  if len(chosen) > 1 or (merged and name != WHOLE):
    table = functools.partial(weights.table, only=chosen)
    prefix, size, ways, outer = "", eagle.size, (Scheme("eagle", _MERGED, table),), ""
  leaves = {
    path.removeprefix(prefix): leaf
    for path, leaf in engine.flatten(abstract_params(eagle)).items()
    if path.startswith(tuple(inner))
  }
  return Part(name, prefix, size, ways, leaves, outer)


def _parts(size: EagleSize) -> dict[str, tuple[str, Any, tuple[Scheme, ...], str]]:
  """Returns name → prefix, size, schemes and outer prefix of every part of a model."""
  experts = {
    name: (f"vision/{name}/", expert, EXPERTS[name].schemes, weights.expert_prefix(index))
    for index, (name, expert) in enumerate(size.experts)
  }
  return {
    WHOLE: ("", size, (Scheme("eagle", _EMBEDDING, weights.table),), ""),
    LANGUAGE: ("language/", size.language, _LANGUAGE, ""),
    PROJECTOR: ("projector/", size.projector, (Scheme("eagle", _LAYER, weights.projector),), ""),
    **experts,
  }


def schemes_of(size: EagleSize) -> dict[str, tuple[Scheme, ...]]:
  """Returns name → naming schemes of every part of a model."""
  return {name: ways for name, (_, _, ways, *_) in _parts(size).items()}
