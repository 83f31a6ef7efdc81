"""A decoder of the Llama family: grouped queries, half-split rotary, gated SiLU, RMS norms.

Layers are stacked and scanned for training (`stacked=True`); for answering they stand
one by one and keep a cache each (`stacked=False`, parameters from
`eagle_jax.infer.unstack`), because carrying a stacked cache through a scan costs 2.7
times the decoding time.

Source: Llama 2, section 2.2; the names of Hugging Face's modeling_llama.py in
`weights/llama.py`.
"""

from __future__ import annotations

import functools
import typing

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from eagle_jax.language import cache as caching
from eagle_jax.language.sizes import LlamaSize
from eagle_jax.nn.attention import attend
from eagle_jax.nn.layers import GatedMlp, RmsNorm, stack
from eagle_jax.nn.rotary import apply_rotary_half, rotary
from eagle_jax.sharding.activations import hold

if typing.TYPE_CHECKING:
  from collections.abc import Sequence
  from typing import Any

  from jax.typing import DTypeLike
  from jaxtyping import Array, Bool, Float, Float32, Int

  from eagle_jax.language.cache import LayerCache

  Rotation = tuple[Float32[Array, "B T d"], Float32[Array, "B T d"]]


class Attention(nn.Module):
  """Grouped-query attention with rotary positions; no biases."""

  size: LlamaSize
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    mask: Bool[Array, "B 1 T S"],
    rotation: Rotation,
    *,
    cache: LayerCache | None = None,
    start: Int[Array, ""] | int = 0,
  ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
    """Attends to the tokens of `x`, or with a cache to its first S slots.

    Args:
      x: normalised hidden states.
      mask: True where a query may look; with a cache, S says how many slots are read.
      rotation: cosines and sines at the positions of `x`.
      cache: keys and values so far; those of `x` are written into it.
      start: slot of the first token of `x`.
    """
    size = self.size
    dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
    rows, length = x.shape[:2]

    def heads(name: str, count: int) -> Float[Array, "B T H d"]:
      out = hold(dense(count * size.head_dim, name=name)(x), "rows", "tokens", "heads")
      return out.reshape(rows, length, count, size.head_dim)

    query = apply_rotary_half(heads("query", size.num_heads), *rotation)  # [B, T, K·G, d]
    keys = apply_rotary_half(heads("key", size.num_kv_heads), *rotation)  # [B, T, K, d]
    values = heads("value", size.num_kv_heads)  # [B, T, K, d]
    if cache is not None:
      cache = caching.write(cache, keys, values, start=start)
      keys, values = caching.read(cache, mask.shape[-1])  # [B, S, K, d]
    mixed = attend(query, keys, values, scale=size.head_dim**-0.5, mask=mask)
    mixed = mixed.reshape(rows, length, size.num_heads * size.head_dim)
    mixed = hold(mixed, "rows", "tokens", "heads")
    return dense(size.width, name="out")(mixed), cache


class Block(nn.Module):
  """One pre-norm layer, for a scan over layers as well as for one step of decoding."""

  size: LlamaSize
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    mask: Bool[Array, "B 1 T S"],
    rotation: Rotation,
    *,
    cache: LayerCache | None = None,
    start: Int[Array, ""] | int = 0,
  ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
    """Returns the hidden states after the layer, and the cache if one was given."""
    norm = functools.partial(RmsNorm, self.size.norm_eps, self.dtype)
    attention = Attention(self.size, self.dtype, name="attention")
    normed = norm(name="attention_norm")(x)
    mixed, cache = attention(normed, mask, rotation, cache=cache, start=start)
    x = x + mixed
    mlp = GatedMlp(self.size.mlp_width, nn.silu, self.dtype, name="mlp")
    x = x + mlp(norm(name="mlp_norm")(x))
    self.sow("probes", "block", x)
    return x, cache


class Llama(nn.Module):
  """The language model, from embeddings to logits.

  Attributes:
    size: what to build.
    dtype: of computation; norms, softmax, rotation and logits are float32 inside.
    remat: of the blocks, one of `nn.remat.POLICIES`.
    stacked: whether the blocks are scanned over stacked parameters or stand one by one.
  """

  size: LlamaSize
  dtype: DTypeLike = jnp.float32
  remat: str = "none"
  stacked: bool = True

  def setup(self) -> None:
    """Declares the parts; parameters are [V, D], [L, …], [D] and [D, V]."""
    size = self.size
    self.table = nn.Embed(size.vocab, size.width, dtype=self.dtype, name="embed")
    if self.stacked:
      self.layers: Any = stack(Block, size.depth, remat=self.remat, axes=("rows", "tokens"))(
        size, self.dtype
      )
    else:
      self.layers = [Block(size, self.dtype) for _ in range(size.depth)]
    self.final_norm = RmsNorm(size.norm_eps, self.dtype)
    if not size.tied:
      wide = functools.partial(lax.dot_general, preferred_element_type=jnp.float32)
      self.head = nn.Dense(size.vocab, use_bias=False, dtype=self.dtype, dot_general=wide)

  def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
    """Looks tokens up; a placeholder gets the vector of id 0, for the splice to replace."""
    return self.table(jnp.maximum(tokens, 0))

  def __call__(
    self,
    embeddings: Float[Array, "B S D"],
    valid: Bool[Array, "B S"],
    positions: Int[Array, "B S"],
    *,
    segments: Int[Array, "B S"] | None = None,
  ) -> Float[Array, "B S D"]:
    """Runs all blocks and the final norm over whole rows, in training form.

    Args:
      embeddings: token and image vectors.
      valid: False at padding, on either side; what stands there is never looked at.
      positions: rotary position of each token.
      segments: of packed rows, the conversation of each token; 0 exactly at padding.
    """
    x = embeddings.astype(self.dtype)
    mask = causal_mask(valid) if segments is None else segment_mask(segments)
    x, _ = self.layers(x, mask, self._rotation(positions))
    return self.final_norm(x)

  def extend(
    self,
    embeddings: Float[Array, "B T D"],
    mask: Bool[Array, "B 1 T S"],
    positions: Int[Array, "B T"],
    *,
    caches: Sequence[LayerCache],
    start: Int[Array, ""] | int,
  ) -> tuple[Float[Array, "B T D"], list[LayerCache]]:
    """Runs T more tokens against what the caches hold; needs `stacked=False`.

    Args:
      embeddings: the tokens to add, a whole prompt or one per row.
      mask: which of the first S cache slots each of them may look at.
      positions: rotary position of each token.
      caches: one per layer.
      start: slot of the first token; the same in all rows.

    Returns:
      Hidden states after the final norm, and the caches with T slots more in use.
    """
    x, rotation = embeddings.astype(self.dtype), self._rotation(positions)
    grown = []
    for block, cache in zip(self.layers, caches, strict=True):
      x, cache = block(x, mask, rotation, cache=cache, start=start)
      grown.append(cache)
    return self.final_norm(x), grown

  def logits(self, hidden: Float[Array, "B S D"]) -> Float32[Array, "B S V"]:
    """Scores every vocabulary entry, summed in float32 whatever the dtype."""
    if not self.size.tied:
      return self.head(hidden)
    table = self.table.embedding.astype(self.dtype)
    return jnp.einsum(
      "bsd,vd->bsv", hidden.astype(self.dtype), table, preferred_element_type=jnp.float32
    )

  def _rotation(self, positions: Int[Array, "B S"]) -> Rotation:
    """Cosines and sines, two of [B, S, d], shared by all layers."""
    return rotary(positions, self.size.head_dim, self.size.rope_theta)


def causal_mask(valid: Bool[Array, "B S"]) -> Bool[Array, "B 1 S S"]:
  """Lets each token see the valid ones up to itself, as mask[b, 0, query, key].

  Padding before the first valid token would see nothing, and a softmax over nothing
  is undefined on some backends: such a query sees the padding up to itself. Its
  output is finite and no valid token looks at it.
  """
  sees_any = jnp.cumsum(valid, axis=1) > 0  # [B, S]
  visible = valid[:, None, :] | ~sees_any[:, :, None]  # [B, S, S]
  return (_causal(valid.shape[1]) & visible)[:, None]


def segment_mask(segments: Int[Array, "B S"]) -> Bool[Array, "B 1 S S"]:
  """Lets each token of a packed row see its own segment up to itself, as mask[b, 0, query, key].

  Padding is a segment like any other, so that no query sees nothing.
  """
  same = segments[:, :, None] == segments[:, None, :]  # [B, S, S]
  return (_causal(segments.shape[1]) & same)[:, None]


def _causal(length: int) -> Bool[Array, "1 S S"]:
  """Lets each of S = `length` tokens see those up to itself."""
  order = jnp.arange(length)
  return (order[:, None] >= order[None, :])[None]
