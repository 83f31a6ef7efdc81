"""Weights of SAM's image encoder under the names of EAGLE's tower.

The neck's convolution has the name and shape of SAM's own, but its trained value is
only in EAGLE's checkpoints; what SAM's file holds there is another network's.
"""

from __future__ import annotations

import typing

from eagle_jax.convert.rules import Rule, Table, conv, linear, same

if typing.TYPE_CHECKING:
  from eagle_jax.vision.sam import SamSize

RULES = (
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
  Rule("neck.conv1.weight", "neck_conv/kernel", conv),
  Rule("neck.layer_norm1.weight", "neck_norm/scale", same),
  Rule("neck.layer_norm1.bias", "neck_norm/bias", same),
)


def table(size: SamSize) -> Table:
  """Returns the weight table of one size: source names to paths below the expert.

  Blocks go to slices of stacked leaves, kernels to [count, length, in, out].
  """
  return Table(RULES, size.layout.slots())
