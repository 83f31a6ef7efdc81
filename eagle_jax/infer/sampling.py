"""From the logits of one position to the next token."""

from __future__ import annotations

import typing

import jax
import jax.numpy as jnp
from flax import struct

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, PRNGKeyArray


@struct.dataclass
class Sampling:
  """How tokens are drawn. Traced, so that other values need no new compilation.

  Attributes:
    temperature: divides the logits, > 0; small values approach greedy choice.
    top_p: share of the probability that may be drawn from, in (0, 1]; the smallest
      set of likeliest tokens that holds it. 1 draws from all.
  """

  temperature: Float[Array, ""] | float = 1.0
  top_p: Float[Array, ""] | float = 1.0


def greedy(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
  """Returns the likeliest token of each row, the lowest id among equals."""
  return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def sample(logits: Float[Array, "B V"], sampling: Sampling, key: PRNGKeyArray) -> Int[Array, " B"]:
  """Draws a token per row: temperature first, then the nucleus.

  Source: The Curious Case of Neural Text Degeneration, section 3.1.
  """
  scaled = logits.astype(jnp.float32) / sampling.temperature
  return jax.random.categorical(key, nucleus(scaled, sampling.top_p)).astype(jnp.int32)


def nucleus(logits: Float[Array, "B V"], top_p: Float[Array, ""] | float) -> Float[Array, "B V"]:
  """Returns the logits with −∞ outside the smallest set that holds `top_p`.

  A token stays when those likelier than it hold less than `top_p` together, so the
  likeliest always stays.
  """
  order = jnp.argsort(logits, axis=-1, descending=True)
  sorted_logits = jnp.take_along_axis(logits, order, axis=-1)
  probabilities = jax.nn.softmax(sorted_logits, axis=-1)
  likelier = jnp.cumsum(probabilities, axis=-1) - probabilities  # [B, V]
  # `top_p` = 1 must not lose the tail to rounding of the running sum.
  stays = (likelier < top_p) | (jnp.asarray(top_p) >= 1)
  sorted_logits = jnp.where(stays, sorted_logits, -jnp.inf)
  back = jnp.argsort(order, axis=-1)
  return jnp.take_along_axis(sorted_logits, back, axis=-1)
