"""The Llama family in GGUF's names.

Source: llama.cpp, convert_hf_to_gguf.py; ggml, docs/gguf.md, keys of the Llama family.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from eagle_jax.convert.rules import Drop, Rule, Shape, Table, Transform
from eagle_jax.convert.schemes import renamed
from eagle_jax.convert.source import Source
from eagle_jax.errors import EagleError
from eagle_jax.language.sizes import LlamaSize
from eagle_jax.language.weights import llama

MARK = "token_embd.weight"
"""A tensor that every file of the family has."""

ROPE_FACTORS = "rope_freqs.weight"
"""What the rotary frequencies are divided by, one number for each [d/2]."""

_WORDS = {
  "model.layers.": "blk.",
  "input_layernorm": "attn_norm",
  "post_attention_layernorm": "ffn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
  "self_attn.rotary_emb.inv_freq": "attn_rot_embd*",
}
"""Word of Hugging Face's names → word of GGUF's."""

_FACTS = {
  "block_count": "depth",
  "embedding_length": "width",
  "feed_forward_length": "mlp_width",
  "attention.head_count": "num_heads",
  "attention.head_count_kv": "num_kv_heads",
  "rope.dimension_count": "head_dim",
  "rope.freq_base": "rope_theta",
  "attention.layer_norm_rms_epsilon": "norm_eps",
}
"""Key of the metadata below 'llama.' → field of `LlamaSize`."""


def paired(heads: int, head_dim: int) -> Transform:
  """Returns the transform of query and key kernels, whose rows stand in another order here.

  Llama's rotation turns row i of a head together with row i + d/2; for llama.cpp, which
  turns neighbours, the file has these two beside each other. (H·d, in) with such pairs
  becomes [in, H·d] with halves.
  """
  rows, half = heads * head_dim, head_dim // 2

  def shape(source: Shape) -> Shape:
    # [H·d, D] → [D, H·d]
    if len(source) != 2 or source[0] != rows:
      raise ValueError(f"{heads} heads take the shape [{rows}, in], it is {list(source)}")
    return source[::-1]

  def forward(array: np.ndarray) -> np.ndarray:
    split = array.reshape(heads, half, 2, -1).swapaxes(1, 2)  # [H, 2, d/2, D]
    return split.reshape(rows, -1).T

  def inverse(array: np.ndarray) -> np.ndarray:
    mixed = array.T.reshape(heads, 2, half, -1).swapaxes(1, 2)  # [H, d/2, 2, D]
    return mixed.reshape(rows, -1)

  return Transform(f"paired rows of {heads} heads", forward, inverse, shape)


def table(size: LlamaSize) -> Table:
  """Returns the table from the tensors of a GGUF file to language/; (out, in) to [in, out]."""
  named = renamed(llama.table(size.tied), _WORDS)
  pairs = {
    "blk.{n}.attn_q.weight": paired(size.num_heads, size.head_dim),
    "blk.{n}.attn_k.weight": paired(size.num_kv_heads, size.head_dim),
  }
  rules = tuple(
    dataclasses.replace(rule, transform=pairs.get(rule.source, rule.transform))
    if isinstance(rule, Rule)
    else rule
    for rule in named.rules
  )
  return Table((*rules, Drop(ROPE_FACTORS, why="all ones, else the file is refused")))


def check(size: LlamaSize, source: Source) -> None:
  """Demands that a file says of itself what a size says, as far as shapes do not show it.

  A [H·d, D] kernel, for one, does not tell how many heads it is of.

  Raises:
    EagleError: if a number differs, or the file's rotary frequencies are scaled; one
      error for all.
  """
  facts: Mapping[str, Any] = getattr(source, "metadata", {})
  family = facts.get("general.architecture", "llama")
  breaches = [] if family == "llama" else [f"general.architecture is {family!r}, not 'llama'"]
  for key, field in _FACTS.items():
    told, ours = facts.get(f"llama.{key}"), getattr(size, field)
    if told is not None and not _close(told, ours):
      breaches.append(f"llama.{key} is {told!r}, {field} is {ours!r}")
  scaling = facts.get("llama.rope.scaling.type", "none")
  if scaling != "none":
    breaches.append(f"llama.rope.scaling.type is {scaling!r}, only 'none' is known here")
  if ROPE_FACTORS in source.entries() and not np.all(source.read(ROPE_FACTORS) == 1):
    breaches.append(f"{ROPE_FACTORS} is not all ones, scaled frequencies are not known here")
  if breaches:
    raise EagleError(f"{source.description} is of another model:\n  " + "\n  ".join(breaches))


def _close(told: Any, ours: float) -> bool:
  """Whether a number of the file, in float32 there, is that of a size."""
  return isinstance(told, int | float) and math.isclose(told, ours, rel_tol=1e-6)
