"""Weights of DINOv2 under the names of transformers and of its authors' own files.

Queries, keys and values are one parameter [3, in, out] per block: transformers' three
kernels are slices of it, the authors' fused one is all of it.
"""

from __future__ import annotations

import typing

import numpy as np

from eagle_jax.convert.rules import (
  Carry,
  Drop,
  Rule,
  Shape,
  Table,
  Transform,
  conv,
  linear,
  merge,
  reshape,
  same,
  squeeze,
)
from eagle_jax.convert.schemes import Scheme, renamed

if typing.TYPE_CHECKING:
  from eagle_jax.vision.dinov2 import Dinov2Size

_LAYER = "encoder.layer.{n}"
_ATTENTION = f"{_LAYER}.attention"

_SHARED = (
  Rule("embeddings.register_tokens", "register_embedding", squeeze),
  Rule("embeddings.position_embeddings", "positions", squeeze),  # row 0 is the class token's
  Rule("embeddings.patch_embeddings.projection.weight", "patches/kernel", conv),
  Rule("embeddings.patch_embeddings.projection.bias", "patches/bias", same),
  Rule(f"{_LAYER}.norm1.weight", "blocks[{n}]/attention_norm/scale", same),
  Rule(f"{_LAYER}.norm1.bias", "blocks[{n}]/attention_norm/bias", same),
  Rule(f"{_ATTENTION}.output.dense.weight", "blocks[{n}]/attention/out/kernel", linear),
  Rule(f"{_ATTENTION}.output.dense.bias", "blocks[{n}]/attention/out/bias", same),
  Rule(f"{_LAYER}.layer_scale1.lambda1", "blocks[{n}]/attention_scale/layer_scale", same),
  Rule(f"{_LAYER}.norm2.weight", "blocks[{n}]/mlp_norm/scale", same),
  Rule(f"{_LAYER}.norm2.bias", "blocks[{n}]/mlp_norm/bias", same),
  Rule(f"{_LAYER}.mlp.fc1.weight", "blocks[{n}]/mlp/fc1/kernel", linear),
  Rule(f"{_LAYER}.mlp.fc1.bias", "blocks[{n}]/mlp/fc1/bias", same),
  Rule(f"{_LAYER}.mlp.fc2.weight", "blocks[{n}]/mlp/fc2/kernel", linear),
  Rule(f"{_LAYER}.mlp.fc2.bias", "blocks[{n}]/mlp/fc2/bias", same),
  Rule(f"{_LAYER}.layer_scale2.lambda1", "blocks[{n}]/mlp_scale/layer_scale", same),
  Rule("layernorm.weight", "final_norm/scale", same),
  Rule("layernorm.bias", "final_norm/bias", same),
  Carry("embeddings.mask_token", "stood for hidden patches in pre-training; no picture hides any"),
)
"""Tensors that both schemes have in one form. Source: transformers, Dinov2Model."""

_SPLIT = Table(
  tuple(
    Rule(f"{_ATTENTION}.attention.{name}.{leaf}", f"blocks[{{n}},{at}]/attention/qkv/{ours}", turn)
    for at, name in enumerate(("query", "key", "value"))
    for leaf, ours, turn in (("weight", "kernel", linear), ("bias", "bias", same))
  )
)


def _shared(size: Dinov2Size) -> Table:
  """Returns the rules for all but queries, keys and values; the class token becomes [C]."""
  width = size.width
  token = Rule("embeddings.cls_token", "class_embedding", reshape((1, 1, width), (width,)))
  return Table((token, *_SHARED))


def table(size: Dinov2Size) -> Table:
  """Returns the weight table of one size: transformers' names to paths below the expert.

  Blocks go to slices of stacked leaves, kernels to [depth, in, out].
  """
  return merge(_shared(size), _SPLIT)


def _three(source: Shape, rank: int) -> Shape:
  """Returns the shape [3, D, ...] of a shape [3·D, ...] with that many axes."""
  if len(source) != rank or source[0] % 3:
    raise ValueError(f"queries, keys and values are a multiple of 3 rows, not {list(source)}")
  return (3, source[0] // 3, *source[1:])


def _fused_kernel_shape(source: Shape) -> Shape:
  """Returns the shape [3, in, D] of a shape [3·D, in]."""
  three, rows, width = _three(source, 2)
  return three, width, rows


def _split_kernel(fused: np.ndarray) -> np.ndarray:
  """Returns a kernel [3, in, D] of one [3·D, in]."""
  return fused.reshape(_three(fused.shape, 2)).transpose(0, 2, 1)


def _fuse_kernel(split: np.ndarray) -> np.ndarray:
  """Returns a kernel [3·D, in] of one [3, in, D]."""
  return split.transpose(0, 2, 1).reshape(-1, split.shape[1])


_fused_kernel = Transform("fused kernel", _split_kernel, _fuse_kernel, _fused_kernel_shape)
_fused_bias = Transform(
  "fused bias",
  lambda fused: fused.reshape(_three(fused.shape, 1)),
  lambda split: split.reshape(-1),
  lambda source: _three(source, 1),
)

_FUSED = Table(
  (
    Rule("blocks.{n}.attn.qkv.weight", "blocks[{n}]/attention/qkv/kernel", _fused_kernel),
    Rule("blocks.{n}.attn.qkv.bias", "blocks[{n}]/attention/qkv/bias", _fused_bias),
  )
)
"""Source: facebookresearch/dinov2, layers/attention.py, for the order query, key, value."""

_WORDS = {
  "embeddings.position_embeddings": "pos_embed",
  "embeddings.patch_embeddings.projection": "patch_embed.proj",
  "embeddings.": "",
  f"{_ATTENTION}.output.dense": f"{_LAYER}.attn.proj",
  "layer_scale1.lambda1": "ls1.gamma",
  "layer_scale2.lambda1": "ls2.gamma",
  f"{_LAYER}.": "blocks.{n}.",
  "layernorm.": "norm.",
}
"""Words of transformers → of the authors' files. Source: dinov2, models/vision_transformer.py."""


def _facebook(size: Dinov2Size) -> Table:
  """Returns the table of the authors' files, with fused kernels [3·D, in]."""
  return merge(renamed(_shared(size), _WORDS), _FUSED)


def _classifier(size: Dinov2Size) -> Table:
  """Returns the table of transformers' image classifiers; their head [labels, 2·C] is dropped."""
  prefix = "dinov2_with_registers." if size.registers else "dinov2."
  head = Drop("classifier.*", "names one of a fixed set of labels")
  return merge(table(size).prefixed(prefix, ""), Table((head,)))


_MARK = f"{_LAYER}.layer_scale1.lambda1"

# EAGLE released no DINOv2: in a merged checkpoint it has transformers' names, like CLIP.
SCHEMES = (
  Scheme("eagle", _MARK, table),
  Scheme("hf_classifier", f"dinov2*.{_MARK}", _classifier),
  Scheme("facebook", "blocks.{n}.ls1.gamma", _facebook),
)
