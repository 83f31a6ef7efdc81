"""Encoded conversations to a `Batch` of static shape.

Source: EAGLE, eagle_arch.py, prepare_inputs_labels_for_multimodal: placeholders are
expanded first and the row is cut afterwards; positions count content alone.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.data import image
from eagle_jax.data.tokenize import Encoded
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER, Batch

if typing.TYPE_CHECKING:
  from jaxtyping import Bool, Int32, UInt8


class Row(NamedTuple):
  """One conversation, its placeholders expanded to N per picture, not yet padded."""

  images: UInt8[np.ndarray, "i H W 3"]
  tokens: Int32[np.ndarray, " s"]
  loss_mask: Bool[np.ndarray, " s"]


def row(
  encoded: Encoded,
  images: UInt8[np.ndarray, "i H W 3"],
  *,
  tokens_per_image: int,
  max_length: int | None = None,
) -> Row:
  """Expands each placeholder to the N positions of its picture, then cuts the end.

  Args:
    encoded: one placeholder per picture.
    images: the pictures, in the same order.
    tokens_per_image: N.
    max_length: positions kept; a picture may be cut. None keeps all.

  Raises:
    EagleError: if placeholders and pictures differ in number.
  """
  is_image = encoded.ids == PLACEHOLDER
  if is_image.sum() != len(images):
    raise EagleError(f"a row has {is_image.sum()} placeholders and {len(images)} images")
  copies = np.where(is_image, tokens_per_image, 1)
  tokens = np.repeat(encoded.ids, copies)[:max_length]
  return Row(images, tokens, np.repeat(encoded.supervised, copies)[:max_length])


def collate(
  rows: Sequence[Row],
  *,
  lengths: Sequence[int],
  max_images: int,
  image_size: int,
  pad_id: int,
  left: bool = False,
) -> Batch:
  """Pads rows to the shortest of the given lengths that holds them all.

  Args:
    rows: B rows.
    lengths: the lengths S that may occur; one length gives one shape.
    max_images: I; slots that a row does not use hold the mean colour.
    image_size: pixels per side, H and W.
    pad_id: what padding holds.
    left: padding stands in front of the content.

  Returns:
    a Batch of numpy arrays; positions count content from 0 and are 0 at padding.

  Raises:
    EagleError: if a row is longer than every length or holds more pictures than slots.
  """
  longest = max(len(r.tokens) for r in rows)
  length = min((n for n in lengths if n >= longest), default=0)
  if length < longest:
    raise EagleError(f"a row has {longest} positions, the longest allowed has {max(lengths)}")
  most = max(len(r.images) for r in rows)
  if most > max_images:
    raise EagleError(f"a row has {most} images, data.max_images is {max_images}")
  shape = (len(rows), length)
  tokens = np.full(shape, pad_id, np.int32)
  valid, loss_mask = np.zeros(shape, bool), np.zeros(shape, bool)
  images = np.empty((len(rows), max_images, image_size, image_size, 3), np.uint8)
  images[:] = image.MEAN_COLOUR
  for b, r in enumerate(rows):
    content = slice(length - len(r.tokens), None) if left else slice(len(r.tokens))
    tokens[b, content] = r.tokens
    loss_mask[b, content] = r.loss_mask
    valid[b, content] = True
    images[b, : len(r.images)] = r.images
  positions = np.where(valid, np.cumsum(valid, axis=1) - 1, 0).astype(np.int32)
  # The device arrays that Batch speaks of come later, one transfer per batch.
  arrays: dict[str, Any] = {
    "images": images,
    "tokens": tokens,
    "valid": valid,
    "loss_mask": loss_mask,
    "positions": positions,
  }
  return Batch(**arrays)


def prompt_batch(
  rows: Sequence[Row],
  *,
  max_images: int,
  image_size: int,
  pad_id: int,
  lengths: Sequence[int] = (),
) -> Batch:
  """Pads prompts on the left, so that every answer begins at the same place.

  Args:
    rows: B prompts; a prompt is never cut, for that would lose the question.
    max_images: I, the picture slots of a row.
    image_size: pixels per side.
    pad_id: what padding holds.
    lengths: the lengths S that may occur; without any, the longest prompt's.

  Returns:
    a Batch without targets; positions are 1 at padding, as Hugging Face's generate
    has them.

  Raises:
    EagleError: if a prompt is longer than every length.
  """
  batch = collate(
    [r._replace(loss_mask=np.zeros_like(r.loss_mask)) for r in rows],
    lengths=lengths or (max(len(r.tokens) for r in rows),),
    max_images=max_images,
    image_size=image_size,
    pad_id=pad_id,
    left=True,
  )
  positions: Any = np.where(batch.valid, batch.positions, np.int32(1))
  return dataclasses.replace(batch, positions=positions)


def demand_targets(batch: Batch, place: str) -> None:
  """Checks that a mean over the batch's targets exists.

  Only targets predicted at a real token count, so the first token of a row never does.

  Args:
    batch: rows of this process.
    place: where the batch stands, for the message.

  Raises:
    EagleError: if no token is supervised.
  """
  if not np.any(batch.loss_mask[:, 1:] & batch.valid[:, :-1]):
    raise EagleError(
      f"{place}: none of its {len(batch.tokens)} rows has a supervised token; "
      f"data.max_length ({batch.tokens.shape[1]} positions) may cut off every answer"
    )
