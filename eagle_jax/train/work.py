"""The operations that an update needs, from what its batch holds.

What the mathematics asks for, whatever is executed: tokens that are there and no padding,
each token seeing those before it, logits where there is a target, pictures that are looked
at, gradients where something is trained, nothing done twice.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from eagle_jax.model.eagle import Eagle
from eagle_jax.train import traced
from eagle_jax.train.stages import Treatment
from eagle_jax.train.state import nested
from eagle_jax.types import PLACEHOLDER

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float

  from eagle_jax.types import Batch

TOKENS, POSITIONS, IMAGE_TOKENS = "batch/tokens", "batch/positions", "batch/image_tokens"
PAIRS, TARGETS = "batch/pairs", "targets"


def counts(batch: Batch) -> dict[str, Float[Array, ""]]:
  """Counts what a batch, tokens [B, S], holds.

  Returns:
    Real tokens, those of them that are a picture's, all positions, and pairs of a real token
    and one that it sees.
  """
  # float32: a batch of long rows has more pairs than int32 can count.
  seen = jnp.where(batch.valid, batch.positions + 1, 0).astype(jnp.float32)  # [B, S]
  pictures = (batch.tokens == PLACEHOLDER) & batch.valid
  return {
    TOKENS: jnp.sum(batch.valid).astype(jnp.float32),
    IMAGE_TOKENS: jnp.sum(pictures).astype(jnp.float32),
    POSITIONS: jnp.float32(batch.tokens.size),
    PAIRS: jnp.sum(seen),
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """Operations of an update, forward and backward.

  Attributes:
    image: of each picture: experts and projector.
    image_tokens: N, that a picture becomes.
    token: of each token in the blocks of the language model, attention's scores apart.
    pair: of each pair of a token and one that it sees.
    target: of each target: its logits.
  """

  image: float
  image_tokens: int
  token: float
  pair: float
  target: float

  def of(self, held: Mapping[str, float]) -> float:
    """Returns the operations of an update, all devices together.

    Args:
      held: from `counts`, and `targets`.
    """
    return (
      self.image * held[IMAGE_TOKENS] / self.image_tokens
      + self.token * held[TOKENS]
      + self.pair * held[PAIRS]
      + self.target * held[TARGETS]
    )


def measure(
  eagle: Eagle, shapes: Mapping[str, tuple[int, ...]], chosen: Mapping[str, Treatment]
) -> Work:
  """Returns the operations of a stage's updates; traces the experts, computes nothing.

  Gradients are taken to pass through the whole language model, as they do in every stage.

  Args:
    eagle: the model.
    shapes: '/'-joined path → shape of every parameter.
    chosen: path → treatment.
  """
  size = eagle.size.language
  head = "language/embed/embedding" if size.tied else "language/head/kernel"
  blocks = [
    path for path in shapes if path.startswith("language/layers/") and path.endswith("/kernel")
  ]
  return Work(
    image=_of_image(eagle, shapes, chosen),
    image_tokens=eagle.size.image_tokens,
    token=sum(2 * math.prod(shapes[path]) * (2 + chosen[path].trained) for path in blocks),
    pair=3 * 4 * size.num_heads * size.head_dim * size.depth,
    target=2 * math.prod(shapes[head]) * (2 + chosen[head].trained),
  )


def _of_image(
  eagle: Eagle, shapes: Mapping[str, tuple[int, ...]], chosen: Mapping[str, Treatment]
) -> int:
  """Operations from a picture [1, 1, H, W, 3] to its tokens [1, N, D], and of their gradients."""
  side = eagle.size.image_size
  once = eagle.clone(remat="none")
  parts: dict[bool, dict[str, Any]] = {True: {}, False: {}}
  for path, shape in shapes.items():
    if not path.startswith("language/"):
      parts[chosen[path].trained][path] = jax.ShapeDtypeStruct(shape, jnp.float32)

  def total(trained: dict[str, Array], frozen: dict[str, Array], images: Any) -> Float[Array, ""]:
    """Something whose gradient passes through all that a loss's would."""
    params = {"params": nested({**trained, **frozen})}
    tokens = typing.cast("Array", once.apply(params, images, method="encode_images"))
    return jnp.sum(tokens.astype(jnp.float32))

  images = jax.ShapeDtypeStruct((1, 1, side, side, 3), jnp.uint8)
  function = jax.value_and_grad(total) if parts[True] else total
  return traced.of_trace(jax.make_jaxpr(function)(parts[True], parts[False], images))
