"""The Llama family in plain NumPy on a GGUF file as it stands: an independent reference.

Reads with the package's own reader and turns neighbouring channels of the still permuted
queries and keys, as llama.cpp does, so it shares neither reader nor weight table nor
rotation with what it checks.

Source: Llama 2, section 2.2; RoFormer, equation 34, for the rotation of neighbours.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from eagle_jax.demo import extras

if typing.TYPE_CHECKING:
  from jaxtyping import Float


class Reference:
  """A model in memory, its weights dequantised."""

  def __init__(self, path: str | Path, dtype: DTypeLike = np.float32):
    """Reads a GGUF file; every number is computed in `dtype`."""
    gguf = extras.require("gguf", extra="pretrained")
    reader = gguf.GGUFReader(path)
    self._weights: dict[str, np.ndarray] = {
      tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type)
      .reshape(tensor.shape[::-1])
      .astype(dtype)
      for tensor in reader.tensors
    }

    def fact(key: str) -> typing.Any:
      """Returns one entry of the file's metadata."""
      return reader.fields[f"llama.{key}"].contents()

    self._depth = int(fact("block_count"))
    self._heads = int(fact("attention.head_count"))
    self._kv_heads = int(fact("attention.head_count_kv"))
    self._theta = float(fact("rope.freq_base"))
    self._eps = float(fact("attention.layer_norm_rms_epsilon"))

  def logits(self, ids: Sequence[int]) -> Float[np.ndarray, "S V"]:
    """Returns the scores after each of the ids [S]."""
    weights = self._weights
    table = weights["token_embd.weight"]
    x = table[np.asarray(ids)]  # [S, D]
    for n in range(self._depth):
      layer = {
        name.removeprefix(f"blk.{n}.").removesuffix(".weight"): array
        for name, array in weights.items()
        if name.startswith(f"blk.{n}.")
      }
      x = x + self._attend(self._norm(x, layer["attn_norm"]), layer)
      h = self._norm(x, layer["ffn_norm"])
      gate = h @ layer["ffn_gate"].T
      x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["ffn_up"].T)) @ layer["ffn_down"].T
    return self._norm(x, weights["output_norm.weight"]) @ weights.get("output.weight", table).T

  def _norm(
    self, x: Float[np.ndarray, "S D"], scale: Float[np.ndarray, " D"]
  ) -> Float[np.ndarray, "S D"]:
    """Divides each row by its root mean square."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + self._eps) * scale

  def _attend(
    self, x: Float[np.ndarray, "S D"], layer: Mapping[str, np.ndarray]
  ) -> Float[np.ndarray, "S D"]:
    """Returns causal attention; each key/value head serves neighbouring query heads."""
    length = len(x)
    q = turned((x @ layer["attn_q"].T).reshape(length, self._heads, -1), self._theta)
    k = turned((x @ layer["attn_k"].T).reshape(length, self._kv_heads, -1), self._theta)
    v = (x @ layer["attn_v"].T).reshape(length, self._kv_heads, -1)
    group = self._heads // self._kv_heads
    out = np.empty_like(q)
    for head in range(self._heads):
      scores = q[:, head] @ k[:, head // group].T / np.sqrt(q.shape[-1])
      scores[np.triu_indices(length, 1)] = -np.inf
      scores = np.exp(scores - scores.max(-1, keepdims=True))
      out[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, head // group]
    return out.reshape(length, -1) @ layer["attn_output"].T


def turned(x: Float[np.ndarray, "S H d"], theta: float) -> Float[np.ndarray, "S H d"]:
  """Turns neighbouring channels as complex numbers, by position · θ^(−2i/d)."""
  length, _, width = x.shape
  angles = np.arange(length)[:, None] * theta ** (-np.arange(0, width, 2) / width)
  pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
  return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape).astype(x.dtype)
