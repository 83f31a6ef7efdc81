"""Weights of EVA-02 under the names of EAGLE's detection tower and of the whole detector."""

from __future__ import annotations

import typing

from eagle_jax.convert.rules import Carry, Drop, Rule, Table, conv, linear, merge, same
from eagle_jax.convert.schemes import Scheme

if typing.TYPE_CHECKING:
  from eagle_jax.vision.eva02 import Eva02Size

RULES = (
  Rule("pos_embed", "positions", same),  # [1, 1 + cells, D]; row 0 is the class token's
  Rule("patch_embed.proj.weight", "patches/kernel", conv),
  Rule("patch_embed.proj.bias", "patches/bias", same),
  Rule("blocks.{n}.norm1.weight", "{slot}/attention_norm/scale", same),
  Rule("blocks.{n}.norm1.bias", "{slot}/attention_norm/bias", same),
  Rule("blocks.{n}.attn.q_proj.weight", "{slot}/attention/query/kernel", linear),
  Rule("blocks.{n}.attn.k_proj.weight", "{slot}/attention/key/kernel", linear),
  Rule("blocks.{n}.attn.v_proj.weight", "{slot}/attention/value/kernel", linear),
  Rule("blocks.{n}.attn.q_bias", "{slot}/attention/query/bias", same),
  Rule("blocks.{n}.attn.v_bias", "{slot}/attention/value/bias", same),
  Rule("blocks.{n}.attn.proj.weight", "{slot}/attention/out/kernel", linear),
  Rule("blocks.{n}.attn.proj.bias", "{slot}/attention/out/bias", same),
  Rule("blocks.{n}.norm2.weight", "{slot}/mlp_norm/scale", same),
  Rule("blocks.{n}.norm2.bias", "{slot}/mlp_norm/bias", same),
  Rule("blocks.{n}.mlp.w1.weight", "{slot}/mlp/gate/kernel", linear),
  Rule("blocks.{n}.mlp.w1.bias", "{slot}/mlp/gate/bias", same),
  Rule("blocks.{n}.mlp.w2.weight", "{slot}/mlp/up/kernel", linear),
  Rule("blocks.{n}.mlp.w2.bias", "{slot}/mlp/up/bias", same),
  Rule("blocks.{n}.mlp.ffn_ln.weight", "{slot}/mlp/norm/scale", same),
  Rule("blocks.{n}.mlp.ffn_ln.bias", "{slot}/mlp/norm/bias", same),
  Rule("blocks.{n}.mlp.w3.weight", "{slot}/mlp/down/kernel", linear),
  Rule("blocks.{n}.mlp.w3.bias", "{slot}/mlp/down/bias", same),
  Carry("rope_win.freqs_*", "rotary tables are computed, in float32"),
  Carry("rope_glb.freqs_*", "rotary tables are computed, in float32"),
  Carry("blocks.{n}.attn.rope.freqs_*", "the same tables once more, under every block"),
)


def table(size: Eva02Size) -> Table:
  """Returns the weight table of one size: source names to paths below the expert.

  Blocks go to slices of stacked leaves, kernels to [count, length, in, out].
  """
  return Table(RULES, size.layout.slots())


_NET = "backbone.net."
_MARK = "blocks.{n}.attn.q_bias"

# Source: detectron2, the parts of GeneralizedRCNN and SimpleFeaturePyramid.
_DETECTOR = Table(
  (
    Drop("backbone.simfp_{n}.*", "the feature pyramid; EAGLE reads the last block as it is"),
    Drop("proposal_generator.*", "the detector's region proposals"),
    Drop("roi_heads.*", "the detector's heads"),
    Drop("pixel_mean", "the detector's own normalisation of pictures; EAGLE uses CLIP's"),
    Drop("pixel_std", "the detector's own normalisation of pictures; EAGLE uses CLIP's"),
  )
)


def _detection(size: Eva02Size) -> Table:
  """Returns the table of the whole detector, which has the backbone's names below a prefix.

  Only the backbone's kernels become [in, out].
  """
  return merge(table(size).prefixed(_NET, ""), _DETECTOR)


SCHEMES = (
  Scheme("eagle", _MARK, table),
  Scheme("detection", _NET + _MARK, _detection),
)
