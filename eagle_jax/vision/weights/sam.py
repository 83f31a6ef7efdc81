"""Weights of SAM's image encoder under the names of EAGLE's tower, transformers and Meta.

The neck's convolution has the name and shape of SAM's own, but its trained value is
only in EAGLE's checkpoints; what SAM's file holds there is another network's.
"""

from __future__ import annotations

import typing

from eagle_jax.convert.rules import Drop, Rule, Table, conv, linear, merge, same
from eagle_jax.convert.schemes import Scheme, renamed

if typing.TYPE_CHECKING:
  from eagle_jax.vision.sam import SamSize

_RULES = (
  Rule("pos_embed", "positions", same),  # [1, cells, cells, D]
  Rule("patch_embed.projection.weight", "patches/kernel", conv),
  Rule("patch_embed.projection.bias", "patches/bias", same),
  Rule("layers.{n}.layer_norm1.weight", "{slot}/attention_norm/scale", same),
  Rule("layers.{n}.layer_norm1.bias", "{slot}/attention_norm/bias", same),
  Rule("layers.{n}.attn.qkv.weight", "{slot}/attention/qkv/kernel", linear),
  Rule("layers.{n}.attn.qkv.bias", "{slot}/attention/qkv/bias", same),
  Rule("layers.{n}.attn.rel_pos_h", "{slot}/attention/relative_row_positions", same),
  Rule("layers.{n}.attn.rel_pos_w", "{slot}/attention/relative_column_positions", same),
  Rule("layers.{n}.attn.proj.weight", "{slot}/attention/out/kernel", linear),
  Rule("layers.{n}.attn.proj.bias", "{slot}/attention/out/bias", same),
  Rule("layers.{n}.layer_norm2.weight", "{slot}/mlp_norm/scale", same),
  Rule("layers.{n}.layer_norm2.bias", "{slot}/mlp_norm/bias", same),
  Rule("layers.{n}.mlp.lin1.weight", "{slot}/mlp/fc1/kernel", linear),
  Rule("layers.{n}.mlp.lin1.bias", "{slot}/mlp/fc1/bias", same),
  Rule("layers.{n}.mlp.lin2.weight", "{slot}/mlp/fc2/kernel", linear),
  Rule("layers.{n}.mlp.lin2.bias", "{slot}/mlp/fc2/bias", same),
)

_NECK_RULES = (
  Rule("neck.conv1.weight", "neck_conv/kernel", conv),
  Rule("neck.layer_norm1.weight", "neck_norm/scale", same),
  Rule("neck.layer_norm1.bias", "neck_norm/bias", same),
)


def table(size: SamSize) -> Table:
  """Returns the weight table of one size: source names to paths below the expert.

  Blocks go to slices of stacked leaves, kernels to [count, length, in, out].
  """
  return Table(_RULES + _NECK_RULES, size.layout.slots())


_MARK = "layers.{n}.attn.rel_pos_h"
_HF = "vision_encoder."
_META = "image_encoder."

_META_WORDS = {
  "patch_embed.projection": "patch_embed.proj",
  "layers.{n}.layer_norm": "blocks.{n}.norm",
  "layers.{n}": "blocks.{n}",
}
"""Words of transformers → of Meta's file. Source: segment_anything, ImageEncoderViT."""

_OTHER_NECK = "SAM's own neck; EAGLE puts another in its place"
_FRESH = dict.fromkeys(
  ("neck_conv/kernel", "neck_norm/scale", "neck_norm/bias"),
  "EAGLE's own neck, which is trained with the projector",
)

_OTHER_PARTS = Table(
  (
    Drop("prompt_encoder.*", "SAM's encoder of points, boxes and masks"),
    Drop("mask_decoder.*", "SAM's decoder of masks"),
  )
)
_HF_PARTS = Table(
  (
    Drop(f"{_HF}neck.conv{{n}}.weight", _OTHER_NECK),
    Drop(f"{_HF}neck.layer_norm{{n}}.weight", _OTHER_NECK),
    Drop(f"{_HF}neck.layer_norm{{n}}.bias", _OTHER_NECK),
    Drop("shared_image_embedding.positional_embedding", "positions for SAM's mask decoder"),
  )
)
_META_PARTS = Table(
  (
    Drop(f"{_META}neck.{{n}}.weight", _OTHER_NECK),
    Drop(f"{_META}neck.{{n}}.bias", _OTHER_NECK),
  )
)


def _hf(size: SamSize) -> Table:
  """Returns the table of transformers' SamModel; EAGLE took its fused kernels [D, 3D] over."""
  encoder = Table(_RULES, size.layout.slots())
  return merge(encoder.prefixed(_HF, ""), _HF_PARTS, _OTHER_PARTS)


def _meta(size: SamSize) -> Table:
  """Returns the table of Meta's published file, with the same fused kernels [D, 3D]."""
  encoder = renamed(Table(_RULES, size.layout.slots()), _META_WORDS)
  return merge(encoder.prefixed(_META, ""), _META_PARTS, _OTHER_PARTS)


SCHEMES = (
  Scheme("eagle", _MARK, table),
  Scheme("hf", _HF + _MARK, _hf, _FRESH),
  Scheme("meta", _META + "blocks.{n}.attn.rel_pos_h", _meta, _FRESH),
)
