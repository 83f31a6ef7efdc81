"""Weights of SigLIP under the names of transformers, and of big_vision's .npz files.

Queries, keys and values are a parameter each, [in, out] with the heads one after the other:
big_vision's axes of heads and of channels per head are one axis here.
"""

from __future__ import annotations

import dataclasses
import typing

from eagle_jax.convert.rules import (
  Carry,
  Drop,
  Rule,
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
  from eagle_jax.vision.siglip import SigLipSize

_HEAD = "pools the patches into one vector; the grid is read before it"
_TEXTS = "the text encoder, which EAGLE has no use for"
_LOSS = "scale or offset of the contrastive loss"

_LAYER = "vision_model.encoder.layers.{n}"
_DENSES = {
  "self_attn.q_proj": "attention/query",
  "self_attn.k_proj": "attention/key",
  "self_attn.v_proj": "attention/value",
  "self_attn.out_proj": "attention/out",
  "mlp.fc1": "mlp/fc1",
  "mlp.fc2": "mlp/fc2",
}
_NORMS = {"layer_norm1": "attention_norm", "layer_norm2": "mlp_norm"}
"""Modules of a block in transformers → here."""

_TRANSFORMERS: tuple[Rule | Drop | Carry, ...] = (
  Rule("vision_model.embeddings.patch_embedding.weight", "patches/kernel", conv),
  Rule("vision_model.embeddings.patch_embedding.bias", "patches/bias", same),
  Rule("vision_model.embeddings.position_embedding.weight", "positions", same),
  *(Rule(f"{_LAYER}.{m}.weight", f"blocks[{{n}}]/{p}/kernel", linear) for m, p in _DENSES.items()),
  *(Rule(f"{_LAYER}.{m}.weight", f"blocks[{{n}}]/{p}/scale", same) for m, p in _NORMS.items()),
  *(
    Rule(f"{_LAYER}.{m}.bias", f"blocks[{{n}}]/{p}/bias", same)
    for m, p in (_DENSES | _NORMS).items()
  ),
  Rule("vision_model.post_layernorm.weight", "final_norm/scale", same),
  Rule("vision_model.post_layernorm.bias", "final_norm/bias", same),
  Carry("vision_model.head.*", _HEAD),
  Carry("vision_model.embeddings.position_ids", "the numbers 0, 1, 2, …; old checkpoints only"),
)
"""Source: transformers, SiglipVisionModel."""

_OTHER_HALF = Table(
  (
    Drop("text_model.*", _TEXTS),
    Drop("logit_scale", _LOSS),
    Drop("logit_bias", _LOSS),
  )
)


def table(size: SigLipSize) -> Table:
  """Returns the weight table of one size: transformers' names to paths below the expert.

  Blocks go to slices of stacked leaves, kernels to [depth, in, out]. A class token, which
  no SigLIP of transformers has, is called as CLIP's is.
  """
  token = Rule("vision_model.embeddings.class_embedding", "class_embedding", same)
  return Table((token, *_TRANSFORMERS) if size.class_token != "none" else _TRANSFORMERS)


def _whole_model(size: SigLipSize) -> Table:
  """Returns the table of files that may hold the text encoder too; kernels become [in, out]."""
  return merge(table(size), _OTHER_HALF)


def _block(size: SigLipSize, *, stacked: bool) -> tuple[tuple[str, str, Transform], ...]:
  """Returns names, paths and transforms of a block, or of all blocks in one [depth, ...]."""
  depth = (size.depth,) if stacked else ()
  width, heads = size.width, (size.num_heads, size.width // size.num_heads)
  attention = "MultiHeadDotProductAttention_0"
  into = reshape((*depth, width, *heads), (*depth, width, width))
  bias = reshape((*depth, *heads), (*depth, width))
  out = reshape((*depth, *heads, width), (*depth, width, width))
  projections = ("query", "key", "value")
  parts = (
    *((f"{attention}/{name}/kernel", f"attention/{name}/kernel", into) for name in projections),
    *((f"{attention}/{name}/bias", f"attention/{name}/bias", bias) for name in projections),
    (f"{attention}/out/kernel", "attention/out/kernel", out),
    (f"{attention}/out/bias", "attention/out/bias", same),
  )
  norms = (("LayerNorm_0", "attention_norm"), ("LayerNorm_1", "mlp_norm"))
  denses = (("MlpBlock_0/Dense_0", "mlp/fc1"), ("MlpBlock_0/Dense_1", "mlp/fc2"))
  return (
    *parts,
    *((f"{n}/{leaf}", f"{ours}/{leaf}", same) for n, ours in norms for leaf in ("scale", "bias")),
    *((f"{n}/{leaf}", f"{ours}/{leaf}", same) for n, ours in denses for leaf in ("kernel", "bias")),
  )


def _tree(size: SigLipSize, *, stacked: bool) -> Table:
  """Returns the table of the parameters of one ViT of big_vision, without a prefix.

  Args:
    size: of the network.
    stacked: whether a tensor holds all blocks, [depth, ...], or one.

  Source: big_vision, models/vit.py.
  """
  source, target = ("", "blocks") if stacked else ("_{n}", "blocks[{n}]")
  token = Rule("cls", "class_embedding", reshape((1, 1, size.width), (size.width,)))
  return Table(
    (
      *((token,) if size.class_token != "none" else ()),
      Rule("embedding/kernel", "patches/kernel", same),
      Rule("embedding/bias", "patches/bias", same),
      Rule("pos_embedding", "positions", squeeze),
      *(
        Rule(f"Transformer/encoderblock{source}/{name}", f"{target}/{path}", transform)
        for name, path, transform in _block(size, stacked=stacked)
      ),
      Rule("Transformer/encoder_norm/scale", "final_norm/scale", same),
      Rule("Transformer/encoder_norm/bias", "final_norm/bias", same),
      Carry("MAPHead_0/*", _HEAD),
      Carry("pre_logits/*", _HEAD),
      Carry("head/*", _HEAD),
    )
  )


_ROOTS = ("params/", "", "opt/target/")
"""What stands before all names: mostly; where the parameters alone were kept; before 2022."""
_PREFIXES = (*(f"{root}img/" for root in _ROOTS), *_ROOTS)
"""The same with two encoders, or with a language model, then alone."""

_BESIDE = Table(
  (
    *(Drop(f"{root}txt/*", _TEXTS) for root in _ROOTS),
    *(Drop(f"{root}llm/*", "PaliGemma's language model") for root in _ROOTS),
    *(Drop(f"{root}{name}", _LOSS) for root in _ROOTS for name in "tb"),
    Drop("opt/state/*", "state of the optimizer"),
    Drop("opt/{n}/*", "state of the optimizer"),
    Drop("chrono/*", "times of the training run"),
  )
)


def _rooted(tree: Table, prefixes: tuple[str, ...]) -> Table:
  """Returns the table of files in which these parameters stand under one of some prefixes.

  Where several names fit a parameter, messages give the one with the first prefix.
  """
  return merge(*(tree.prefixed(prefix, "") for prefix in prefixes), _BESIDE)


def _loop(size: SigLipSize) -> Table:
  """Returns the table of files with a tensor per block, such as a kernel [D, H, d]."""
  return _rooted(_tree(size, stacked=False), _PREFIXES)


def _scan(size: SigLipSize) -> Table:
  """Returns the table of files with a tensor for all blocks, such as a kernel [L, D, H, d]."""
  return _rooted(_tree(size, stacked=True), _PREFIXES)


_AUGREG = {
  "pos_embedding": "Transformer/posembed_input/pos_embedding",
  "}/MultiHeadDotProductAttention_0": "}/MultiHeadDotProductAttention_1",
  "}/LayerNorm_1": "}/LayerNorm_2",
  "}/MlpBlock_0": "}/MlpBlock_3",
}
"""Names of big_vision → of the files it grew out of. Source: vision_transformer, models_vit.py."""


def _augreg(size: SigLipSize) -> Table:
  """Returns the table of the older ViTs, whose position table has a row for the class token."""
  return _rooted(renamed(_tree(size, stacked=False), _AUGREG), ("", "opt/target/", "params/"))


_FILES = (
  Scheme("big_vision", "*Transformer/encoderblock_{n}/MlpBlock_0/Dense_0/kernel", _loop),
  Scheme("big_vision_scan", "*Transformer/encoderblock/MlpBlock_0/Dense_0/kernel", _scan),
  Scheme("augreg", "*Transformer/encoderblock_{n}/MlpBlock_3/Dense_0/kernel", _augreg),
)

# Exports have transformers' names: nobody looks for the others in a safetensors file.
SCHEMES = (
  Scheme("eagle", "vision_model.embeddings.patch_embedding.bias", _whole_model),  # CLIP has none
  *(dataclasses.replace(scheme, exported=False) for scheme in _FILES),
)
