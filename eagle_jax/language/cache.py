"""Keys and values of past tokens, one pair of arrays per layer.

The caches of a model are a list with one entry per layer, so that each array can be
donated and updated in place. All rows write the same slots; which slots hold something
a row may look at is the caller's mask.
"""

from __future__ import annotations

import typing

import jax.numpy as jnp
from flax import struct
from jax import lax

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, Int

  from eagle_jax.language.sizes import LlamaSize


@struct.dataclass
class LayerCache:
  """What one layer remembers.

  Attributes:
    keys: rotated keys by slot.
    values: values by slot.
  """

  keys: Float[Array, "B S K d"]
  values: Float[Array, "B S K d"]


def empty(size: LlamaSize, *, rows: int, length: int, dtype: DTypeLike) -> list[LayerCache]:
  """Returns zeroed caches of `length` slots for every layer, arrays of [B, S, K, d].

  Args:
    size: the model.
    rows: B.
    length: slots per row, prompt and answer together.
    dtype: of keys and values; that of the model's computation.
  """
  shape = (rows, length, size.num_kv_heads, size.head_dim)
  # Every array is its own buffer: one that is donated twice cannot be updated in place.
  return [LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(size.depth)]


def write(
  cache: LayerCache,
  keys: Float[Array, "B T K d"],
  values: Float[Array, "B T K d"],
  *,
  start: Int[Array, ""] | int,
) -> LayerCache:
  """Returns the cache with slots start … start+T−1 overwritten in all rows.

  Slots past the end are not checked: `start` is clamped so that T slots fit.
  """
  return LayerCache(
    lax.dynamic_update_slice_in_dim(cache.keys, keys.astype(cache.keys.dtype), start, axis=1),
    lax.dynamic_update_slice_in_dim(cache.values, values.astype(cache.values.dtype), start, axis=1),
  )


def read(
  cache: LayerCache, length: int
) -> tuple[Float[Array, "B {length} K d"], Float[Array, "B {length} K d"]]:
  """Returns keys and values of the first `length` slots."""
  return cache.keys[:, :length], cache.values[:, :length]
