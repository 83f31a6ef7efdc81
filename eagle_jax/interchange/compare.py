"""Two checkpoints of any kinds held against each other, tensor by tensor or by their outputs."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine
from eagle_jax.convert.engine import Outgoing
from eagle_jax.convert.files import open_source
from eagle_jax.errors import EagleError
from eagle_jax.interchange import incoming, outgoing, parts
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.types import PLACEHOLDER, Batch

SAME, VALUES, DIFFERENT = "same bytes", "same values, another dtype", "different"
FIRST_ONLY, SECOND_ONLY = "in the first only", "in the second only"
VERDICTS = (SAME, VALUES, DIFFERENT, FIRST_ONLY, SECOND_ONLY)
"""What can be said of a tensor, best first."""

Named = Mapping[str, Outgoing]
"""Name of a tensor → its form, and how it is read."""


@dataclasses.dataclass(frozen=True)
class Finding:
  """What was found of one tensor.

  Attributes:
    name: of the tensor.
    verdict: one of VERDICTS.
    detail: shapes, or the largest difference; '' where there is nothing to add.
  """

  name: str
  verdict: str
  detail: str = ""


def named(path: str, what: str, experiment: config.Experiment | None) -> Named:
  """Returns the tensors of a checkpoint under foreign names, none of them read.

  Args:
    path: foreign weights, or a checkpoint of this project.
    what: the part of the model, or several with commas between; of foreign files that hold
      a part alone all is taken.
    experiment: around the model; by default what the checkpoint says of itself.

  Raises:
    EagleError: if there is no checkpoint, or it does not say what model it is.
  """
  if checkpoint.is_checkpoint(path):
    around = experiment or _described(path)
    return {tensor.name: tensor for tensor in outgoing.tensors(path, what, around)}
  source = open_source(path)
  known, outer = source.entries(), ""
  if what != parts.WHOLE and parts.is_merged(known):
    conversion = incoming.plan(path, what, experiment)
    outer = parts.part(eagle_lib.build(conversion.experiment.model), what).outer
    wanted = [*(move.name for move in conversion.plan.moves), *conversion.plan.carried]
    known = {name: known[name] for name in wanted}
  found = {}
  for name, entry in known.items():
    bare = name.removeprefix(outer)
    found[bare] = Outgoing(bare, entry, functools.partial(source.read, name))
  return found


def tensors(first: Named, second: Named) -> Iterator[Finding]:
  """Yields what is found of each tensor of either side, one in memory at a time."""
  for name, one in first.items():
    if name not in second:
      yield Finding(name, FIRST_ONLY)
    else:
      yield _compared(one, second[name])
  for name in second:
    if name not in first:
      yield Finding(name, SECOND_ONLY)


def _compared(one: Outgoing, other: Outgoing) -> Finding:
  """Reads two tensors [...] and says how they differ."""
  if one.entry.shape != other.entry.shape:
    detail = f"shapes {list(one.entry.shape)} and {list(other.entry.shape)}"
    return Finding(one.name, DIFFERENT, detail)
  a, b = one.make(), other.make()
  dtypes = f"{a.dtype} and {b.dtype}"
  if a.dtype == b.dtype and a.tobytes() == b.tobytes():
    return Finding(one.name, SAME)
  wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
  if a.dtype != b.dtype and np.array_equal(wide_a, wide_b):
    return Finding(one.name, VALUES, dtypes)
  return Finding(
    one.name, DIFFERENT, f"{dtypes}, at most {np.max(np.abs(wide_a - wide_b), initial=0.0):.3g}"
  )


def logits(path: str, experiment: config.Experiment | None) -> np.ndarray:
  """Runs a whole checkpoint, ours or foreign, in float32 on a picture of noise.

  Args:
    path: of the checkpoint.
    experiment: around the model; by default what the checkpoint says of itself.

  Returns:
    Float32 logits [B, S, V].

  Raises:
    EagleError: if there is no such checkpoint or it is not of a whole model.
  """
  if checkpoint.is_checkpoint(path):
    around = experiment or _described(path)
    held = checkpoint.open_params(path)
    leaves = {name: np.asarray(leaf, np.float32) for name, leaf in held.items()}
    params = engine.unflatten(leaves)
  else:
    conversion = incoming.plan(path, parts.WHOLE, experiment)
    around = conversion.experiment
    params, _ = engine.fill(conversion.plan, conversion.source, np.float32)
  model = dataclasses.replace(around.model, dtype="float32", remat="none")
  eagle = eagle_lib.build(model)
  return np.asarray(jax.jit(eagle.apply)({"params": params}, probe(eagle)))


def described(path: str, what: str) -> config.Experiment | None:
  """Returns the experiment that a checkpoint or a merged folder says it is of, if it says one.

  Args:
    path: of either.
    what: the part that is asked for; the whole of foreign files needs none.

  Raises:
    EagleError: if there is no checkpoint, or what it says is damaged.
  """
  if checkpoint.is_checkpoint(path):
    meta = checkpoint.read_meta(path)
    return config.from_mapping(meta["config"]) if "config" in meta else None
  folder = pathlib.Path(path)
  if what == parts.WHOLE or not (folder / incoming.CONFIG_FILE).is_file():
    return None
  source = open_source(path)
  return incoming.describe(folder, source) if parts.is_merged(source.entries()) else None


def _described(path: str) -> config.Experiment:
  """Returns the experiment that a checkpoint says it is of.

  Raises:
    EagleError: if it says none.
  """
  found = described(path, parts.WHOLE)
  if found is None:
    raise EagleError(f"{path} says no config; use --config=NAME")
  return found


def distance(first: np.ndarray, second: np.ndarray) -> float:
  """Returns the norm of the difference over that of the first, both of any shape [...].

  Raises:
    EagleError: if the shapes differ.
  """
  if first.shape != second.shape:
    raise EagleError(f"logits must have one shape, they are {first.shape} and {second.shape}")
  return float(np.linalg.norm(first - second) / np.linalg.norm(first))


def probe(eagle: eagle_lib.Eagle, *, text: int = 16) -> Batch:
  """Returns a batch of one row: a picture [1, 1, H, W, 3] of noise, then `text` tokens."""
  size, rng = eagle.size, np.random.default_rng(0)
  side, count = size.image_size, size.image_tokens
  words = np.arange(text) % size.language.vocab
  tokens = np.concatenate([np.full(count, PLACEHOLDER), words])[None].astype(np.int32)  # [1, S]
  return Batch(
    images=jnp.asarray(rng.integers(0, 256, (1, 1, side, side, 3)), jnp.uint8),
    tokens=jnp.asarray(tokens),
    valid=jnp.ones(tokens.shape, bool),
    loss_mask=jnp.ones(tokens.shape, bool),
    positions=jnp.arange(tokens.shape[1], dtype=jnp.int32)[None],
  )
