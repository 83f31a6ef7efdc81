"""Image tokens into the places that the host kept free for them.

Source: EAGLE, eagle_arch.py, prepare_inputs_labels_for_multimodal, which cuts and joins
rows of changing length there. Differs: rows arrive expanded, truncated and padded, so
that no shape depends on the data; docs/numerics.md.
"""

from __future__ import annotations

import typing

import jax.numpy as jnp

from eagle_jax.types import PLACEHOLDER

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int


def splice(
  embeddings: Float[Array, "B S D"],
  image_tokens: Float[Array, "R T D"] | None,
  *,
  tokens: Int[Array, "B S"],
  valid: Bool[Array, "B S"],
) -> Float[Array, "B S D"]:
  """Puts the k-th image token of a row at its k-th placeholder, and zeros at padding.

  Where rows share image slots (R < B), it is the k-th placeholder of a group of B/R rows
  that follow each other. Image tokens beyond the placeholders (truncation, unused slots)
  are left out and get no gradient. Placeholders in excess of the image tokens read NaN,
  so that a host that miscounts is noticed at the first loss.

  Args:
    embeddings: of the tokens; what stands at placeholders and padding is not read.
    image_tokens: all image tokens of a row or group, images in order, T = I·N of them;
      None where the batch has no image slots.
    tokens: vocabulary ids, PLACEHOLDER at image positions.
    valid: False at padding, on either side.

  Returns:
    What the language model reads, in the dtype of `embeddings`.
  """
  if image_tokens is not None:
    is_image = tokens == PLACEHOLDER  # [B, S]
    of_group = is_image.reshape(image_tokens.shape[0], -1)  # [R, B/R·S]
    index = jnp.maximum(jnp.cumsum(of_group, axis=1, dtype=jnp.int32) - 1, 0)
    picked = jnp.take_along_axis(image_tokens, index[:, :, None], axis=1, mode="fill")
    picked = picked.reshape(embeddings.shape)  # [B, S, D]
    embeddings = jnp.where(is_image[:, :, None], picked.astype(embeddings.dtype), embeddings)
  return jnp.where(valid[:, :, None], embeddings, jnp.zeros((), embeddings.dtype))  # [B, S, D]
