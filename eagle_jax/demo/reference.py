"""The Llama family in plain NumPy on a GGUF file as it stands: an independent reference.

Reads with the package's own reader and turns neighbouring channels of the still permuted
queries and keys, as llama.cpp does, so it shares neither reader nor weight table nor
rotation with what it checks.

Source: Llama 2, section 2.2; RoFormer, equation 34, for the rotation of neighbours.
"""

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")


class Reference:
  """A model in memory; numbers are float64 where `dtype` says so."""

  def __init__(self, path, dtype=np.float32):
    reader = gguf.GGUFReader(path)
    self.weights = {
      tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type)
      .reshape(tensor.shape[::-1])
      .astype(dtype)
      for tensor in reader.tensors
    }
    fact = lambda key: reader.fields[f"llama.{key}"].contents()
    self.depth = fact("block_count")
    self.heads = fact("attention.head_count")
    self.kv_heads = fact("attention.head_count_kv")
    self.theta = fact("rope.freq_base")
    self.eps = fact("attention.layer_norm_rms_epsilon")

  def logits(self, ids):
    """Scores [S, V] after each of the ids [S]."""
    w = self.weights
    table = w["token_embd.weight"]
    x = table[np.asarray(ids)]
    for n in range(self.depth):
      layer = {
        name.removeprefix(f"blk.{n}.").removesuffix(".weight"): array
        for name, array in w.items()
        if name.startswith(f"blk.{n}.")
      }
      x = x + self._attend(self._norm(x, layer["attn_norm"]), layer)
      h = self._norm(x, layer["ffn_norm"])
      gate = h @ layer["ffn_gate"].T
      x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["ffn_up"].T)) @ layer["ffn_down"].T
    return self._norm(x, w["output_norm.weight"]) @ w.get("output.weight", table).T

  def _norm(self, x, scale):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * scale

  def _attend(self, x, layer):
    """Causal attention of x [S, D]; each key/value head serves neighbouring query heads."""
    length = len(x)
    q = turned((x @ layer["attn_q"].T).reshape(length, self.heads, -1), self.theta)
    k = turned((x @ layer["attn_k"].T).reshape(length, self.kv_heads, -1), self.theta)
    v = (x @ layer["attn_v"].T).reshape(length, self.kv_heads, -1)
    group = self.heads // self.kv_heads
    out = np.empty_like(q)
    for head in range(self.heads):
      scores = q[:, head] @ k[:, head // group].T / np.sqrt(q.shape[-1])
      scores[np.triu_indices(length, 1)] = -np.inf
      scores = np.exp(scores - scores.max(-1, keepdims=True))
      out[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, head // group]
    return out.reshape(length, -1) @ layer["attn_output"].T


def turned(x, theta):
  """Turns neighbouring channels of x [S, H, d] as complex numbers, by position · θ^(−2i/d)."""
  length, _, width = x.shape
  angles = np.arange(length)[:, None] * theta ** (-np.arange(0, width, 2) / width)
  pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
  return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape).astype(x.dtype)
