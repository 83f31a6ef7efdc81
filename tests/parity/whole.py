"""Whole-model goldens as the model takes them: rows from the real host code, one real forward."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.data.batch import Row, collate, prompt_batch, row
from eagle_jax.data.tokenize import Encoded
from eagle_jax.fusion.channel_concat import ChannelConcat
from eagle_jax.model.eagle import Eagle
from eagle_jax.model.projector import Projector
from eagle_jax.types import PLACEHOLDER, Batch
from tests.parity import goldens, sizes

IGNORED = -100
"""Label of a position that is no target, in the files."""
PAD = 0


class Steps(NamedTuple):
  """What one forward gave, for the rows and positions of the file."""

  batch: Batch
  vision_features: np.ndarray  # [n, N, C], one per picture of the file
  projected: np.ndarray  # [n, N, D]
  inputs_embeds: np.ndarray  # [B, S, D]
  hidden_after_layer0: np.ndarray  # [B, S, D]
  logits: np.ndarray  # [B, S, V]


@functools.cache
def model(golden: goldens.Golden) -> Eagle:
  """Returns the module of a golden's configuration, in float32."""
  return Eagle(sizes.eagle(goldens.reference(golden).meta))


@functools.cache
def _params(configuration: goldens.Golden) -> dict[str, Any]:
  """Returns device arrays, converted once per file that holds a configuration."""
  return jax.tree.map(jnp.asarray, goldens.params_for(configuration))


def params(golden: goldens.Golden) -> dict[str, Any]:
  """Returns the golden's parameters, through the real weight table and engine."""
  return _params(goldens.reference(golden))


def slots(golden: goldens.Golden) -> np.ndarray:
  """Returns booleans [B, I]: the image slots that the golden's pictures fill, row by row.

  The original gives a row without placeholder a dummy picture that nothing reads.
  """
  if golden.meta["images"] is None:
    return np.zeros((len(golden["input_ids"]), 0), bool)
  used = np.maximum((golden["input_ids"] == PLACEHOLDER).sum(axis=1), 1)
  return np.arange(used.max())[None] < used[:, None]


@functools.cache
def batch(golden: goldens.Golden) -> Batch:
  """Returns a golden's rows, expanded, cut and padded by the data pipeline.

  Pictures are the file's own normalised pixels, all-zero ones among them, which no bytes
  give: they take the place of the pipeline's.
  """
  override = golden.meta.get("config_override", {})
  rows = _rows(golden, override.get("tokenizer_model_max_length"))
  used = slots(golden)
  shape = {"max_images": used.shape[1], "image_size": 1, "pad_id": PAD}
  if "generated" in golden:
    made = prompt_batch(rows, **shape)
  else:
    left = override.get("tokenizer_padding_side") == "left"
    made = collate(rows, lengths=[max(len(r.tokens) for r in rows)], left=left, **shape)
  side = model(golden).size.image_size
  images = np.zeros((*used.shape, side, side, 3), np.float32)
  if used.any():
    images[used] = goldens.pictures(golden)
  return made.replace(images=images)


def _rows(golden: goldens.Golden, max_length: int | None) -> list[Row]:
  """Returns each row of a file without its padding, through the expansion of the pipeline."""
  ids = golden["input_ids"]
  kept = golden["attention_mask"] if "attention_mask" in golden else np.ones(ids.shape, bool)
  labels = golden["labels"] if "labels" in golden else np.full(ids.shape, IGNORED)
  rows = []
  for tokens, targets, mask in zip(ids, labels, kept, strict=True):
    encoded = Encoded(tokens[mask].astype(np.int32), targets[mask] != IGNORED)
    blank = np.zeros(((encoded.ids == PLACEHOLDER).sum(), 1, 1, 3), np.uint8)
    count = model(golden).size.image_tokens
    rows.append(row(encoded, blank, tokens_per_image=count, max_length=max_length))
  return rows


@functools.cache
def _shape(size: Any) -> tuple[int, int, int]:
  """Returns the largest rows, slots and positions among the files of one configuration.

  Every file is run at that shape, so that five experts are compiled once and not per file.
  """
  kinds = (*goldens.discover("e2e"), *goldens.discover("generate"))
  shapes = [batch(g).images.shape[:2] + batch(g).tokens.shape[1:] for g in kinds if _alike(g, size)]
  return tuple(map(max, zip(*shapes, strict=True)))


def _alike(golden: goldens.Golden, size: Any) -> bool:
  """Whether a golden is of the model of that size."""
  return model(golden).size == size


def _grow(array: np.ndarray, *shape: int) -> np.ndarray:
  """Appends zeros along the leading axes."""
  rest = [(0, 0)] * (array.ndim - len(shape))
  return np.pad(array, [(0, n - m) for n, m in zip(shape, array.shape, strict=False)] + rest)


def _captured(module: Any, method: str) -> bool:
  """Whether to keep what a method gave: all the steps that the files have tensors of."""
  parts = {ChannelConcat: "__call__", Projector: "__call__", Eagle: "embed"}
  return parts.get(type(module)) == method


@functools.partial(jax.jit, static_argnums=0)
def _forward(eagle: Eagle, params: Any, batch: Batch) -> tuple[jax.Array, Any]:
  """Returns logits, and what the parts gave."""
  return eagle.apply(
    {"params": params},
    batch,
    capture_intermediates=_captured,
    mutable=["intermediates", "probes"],
  )


@functools.cache
def forward(golden: goldens.Golden) -> Steps:
  """Runs the real forward of a golden once; without pictures at I = 0."""
  made, used = batch(golden), slots(golden)
  rows, most, length = _shape(model(golden).size)
  most = most if used.any() else 0
  grown = Batch(
    images=_grow(made.images, rows, most),
    tokens=_grow(made.tokens, rows, length),
    valid=_grow(made.valid, rows, length),
    loss_mask=_grow(made.loss_mask, rows, length),
    positions=_grow(made.positions, rows, length),
  )
  logits, kept = _forward(model(golden), params(golden), grown)
  steps = kept["intermediates"]
  first = kept["probes"]["language"]["layers"]["block"][0][0]  # [B, S, D] after the first layer
  content = tuple(map(slice, made.tokens.shape))
  features = projected = np.zeros(0)
  if used.any():
    filled = _grow(used, rows, most).reshape(-1)
    features = np.asarray(steps["fusion"]["__call__"][0])[filled]
    projected = np.asarray(steps["projector"]["__call__"][0])[filled]
  texts = (np.asarray(array)[content] for array in (steps["embed"][0], first, logits))
  return Steps(made, features, projected, *texts)
