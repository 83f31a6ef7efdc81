"""Attention: one function that every network of the project calls, and its plain module.

Layout is [batch, position, head, channel] throughout, which is what the fused kernels
of each backend take, so that choosing one is a matter of this file alone.
"""

from __future__ import annotations

import typing
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from eagle_jax.errors import EagleError
from eagle_jax.nn.remat import name
from eagle_jax.sharding.activations import hold

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Bool, Float


def attend(
  query: Float[Array, "B T H d"],
  key: Float[Array, "B S K d"],
  value: Float[Array, "B S K d"],
  *,
  scale: float,
  bias: Float[Array, "#B #H #T #S"] | None = None,
  mask: Bool[Array, "#B #H #T #S"] | None = None,
) -> Float[Array, "B T H d"]:
  """Averages values by the softmax of query-key products, taken in float32.

  With fewer key/value heads than query heads, H = K·G, query heads h·G … h·G+G-1
  share key/value head h.

  Args:
    query: T query tokens.
    key: S key tokens.
    value: what is averaged.
    scale: factor of the products before bias and softmax.
    bias: added to the scaled products; axes of length 1 are repeated.
    mask: True where a key is visible to a query; axes of length 1 are repeated. A query
      that sees nothing averages all values: finite, and not to be used.

  Raises:
    EagleError: if K does not divide H.
  """
  num_heads, num_kv_heads = query.shape[2], key.shape[2]
  if num_heads % num_kv_heads:
    raise EagleError(
      f"attention: key/value heads must divide query heads, they are {num_kv_heads} and {num_heads}"
    )
  query, key, value = name(query, "query"), name(key, "key"), name(value, "value")
  return name(_mix(query, key, value, scale=scale, bias=bias, mask=mask), "mixed")


def attend_in_parts(
  query: Float[Array, "B T H d"],
  key: Float[Array, "B S H d"],
  value: Float[Array, "B S H d"],
  *,
  scale: float,
  bias: Callable[[Array, Array], Float[Array, "B H t S"]],
  operands: Float[Array, "parts ..."],
) -> Float[Array, "B T H d"]:
  """Attends as `attend` does, for one part of the queries after another.

  The scores of one part alone, [B, H, t, S] with t = T / parts, lie in memory at a time,
  unless a gradient is to be taken.

  Args:
    query: T query tokens.
    key: S key tokens.
    value: what is averaged.
    scale: factor of the products before bias and softmax.
    bias: gives what is added to the scaled products of a part [B, t, H, d] of the queries.
    operands: what `bias` is given beside each part; the number of parts divides T.
  """
  batch, _, heads, head_dim = query.shape
  query, key, value = name(query, "query"), name(key, "key"), name(value, "value")
  cut = query.reshape(batch, operands.shape[0], -1, heads, head_dim).swapaxes(0, 1)

  def one(part: tuple[Array, Array]) -> Float[Array, "B t H d"]:
    """What some of the queries see."""
    return _mix(part[0], key, value, scale=scale, bias=bias(*part), mask=None)

  out = jax.lax.map(one, (cut, operands))  # [parts, B, t, H, d]
  return name(out.swapaxes(0, 1).reshape(query.shape), "mixed")


def _mix(
  query: Float[Array, "B T H d"],
  key: Float[Array, "B S K d"],
  value: Float[Array, "B S K d"],
  *,
  scale: float,
  bias: Float[Array, "#B #H #T #S"] | None,
  mask: Bool[Array, "#B #H #T #S"] | None,
) -> Float[Array, "B T H d"]:
  """Attention itself, arguments as for `attend`."""
  batch, length, _, head_dim = query.shape
  num_kv_heads = key.shape[2]
  grouped = query.reshape(batch, length, num_kv_heads, -1, head_dim)  # [B, T, K, G, d]
  scores = scale * jnp.einsum(
    "btkgd,bskd->bkgts", grouped, key, preferred_element_type=jnp.float32
  )  # [B, K, G, T, S]
  if bias is not None:
    scores = scores + _per_group(bias.astype(jnp.float32), num_kv_heads, scores.shape)
  if mask is not None:
    scores = jnp.where(
      _per_group(mask, num_kv_heads, scores.shape), scores, jnp.finfo(jnp.float32).min
    )
  weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  out = jnp.einsum("bkgts,bskd->btkgd", weights, value)  # [B, T, K, G, d]
  return out.reshape(query.shape)


def _per_group(array: Array, num_kv_heads: int, shape: tuple[int, ...]) -> Array:
  """Brings [#B, #H, #T, #S] to the shape [B, K, G, T, S] of the scores."""
  b, h, t, s = array.shape
  heads = (1, 1) if h == 1 else (num_kv_heads, h // num_kv_heads)
  return jnp.broadcast_to(array.reshape(b, *heads, t, s), shape)


class SelfAttention(nn.Module):
  """Multi-head self-attention with separate `query`, `key`, `value` and `out` layers.

  Attributes:
    num_heads: heads, for queries, keys and values alike.
    head_dim: channels per head.
    scale: factor of the query-key products.
    use_bias: whether the four layers have biases.
    dtype: of computation; softmax is float32.
  """

  num_heads: int
  head_dim: int
  scale: float
  use_bias: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "B N C"], mask: Bool[Array, "#B #H #N #N"] | None = None
  ) -> Float[Array, "B N C"]:
    """Lets every token look at the tokens `mask` shows it, or at all of them."""
    width = self.num_heads * self.head_dim
    heads = (*x.shape[:2], self.num_heads, self.head_dim)

    def dense(name: str) -> Float[Array, "B N H d"]:
      """One of the layers in front."""
      out = nn.Dense(width, use_bias=self.use_bias, dtype=self.dtype, name=name)(x)
      return hold(out, "pictures", None, "heads").reshape(heads)

    query, key, value = dense("query"), dense("key"), dense("value")
    mixed = attend(query, key, value, scale=self.scale, mask=mask).reshape(*x.shape[:2], width)
    mixed = hold(mixed, "pictures", None, "heads")
    return nn.Dense(x.shape[-1], use_bias=self.use_bias, dtype=self.dtype, name="out")(mixed)
