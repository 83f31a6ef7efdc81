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
  """One conversation, or several packed, placeholders expanded to N per picture, not padded.

  Attributes:
    images: the pictures, in the order of their placeholders.
    tokens: ids.
    loss_mask: True at targets.
    samples: positions of each packed conversation, in order; empty where nothing is packed.
  """

  images: UInt8[np.ndarray, "i H W 3"]
  tokens: Int32[np.ndarray, " s"]
  loss_mask: Bool[np.ndarray, " s"]
  samples: tuple[int, ...] = ()


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
  share: int = 1,
) -> Batch:
  """Pads rows to the shortest of the given lengths that holds them all.

  Args:
    rows: B rows.
    lengths: the lengths S that may occur; one length gives one shape.
    max_images: I; slots that no row uses hold the mean colour.
    image_size: pixels per side, H and W.
    pad_id: what padding holds.
    left: padding stands in front of the content.
    share: rows that share I slots, a divisor of B; R = B / share. More than one needs
      pictures that are not cut: `pack.whole`.

  Returns:
    a Batch of numpy arrays; positions count each conversation from 0 and are 0 at padding.
    With segments if any row is packed.

  Raises:
    EagleError: if a row is longer than every length, rows hold more pictures than slots,
      or the rows cannot be dealt out in groups.
  """
  longest = max(len(r.tokens) for r in rows)
  length = min((n for n in lengths if n >= longest), default=0)
  if length < longest:
    raise EagleError(f"a row has {longest} positions, the longest allowed has {max(lengths)}")
  shape = (len(rows), length)
  tokens = np.full(shape, pad_id, np.int32)
  segments, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  loss_mask = np.zeros(shape, bool)
  for b, r in enumerate(rows):
    content = slice(length - len(r.tokens), None) if left else slice(len(r.tokens))
    samples = r.samples or (len(r.tokens),)
    tokens[b, content] = r.tokens
    loss_mask[b, content] = r.loss_mask
    segments[b, content] = np.repeat(np.arange(1, len(samples) + 1), samples)
    positions[b, content] = np.concatenate([np.arange(n) for n in samples])
  # The device arrays that Batch speaks of come later, one transfer per batch.
  arrays: dict[str, Any] = {
    "images": _slots(rows, share, max_images=max_images, image_size=image_size),
    "tokens": tokens,
    "valid": segments > 0,
    "loss_mask": loss_mask,
    "positions": positions,
    "segments": segments if any(r.samples for r in rows) else None,
  }
  return Batch(**arrays)


def _slots(
  rows: Sequence[Row], share: int, *, max_images: int, image_size: int
) -> UInt8[np.ndarray, "R I H W 3"]:
  """Returns the pictures of every `share` rows one after another, then the mean colour.

  Raises:
    EagleError: if they are more than the slots, or the rows cannot be dealt out in groups.
  """
  if len(rows) % share:
    raise EagleError(f"data.share must divide the rows of a batch: {share}, {len(rows)}")
  groups = [rows[first : first + share] for first in range(0, len(rows), share)]
  most = max(sum(len(r.images) for r in group) for group in groups)
  if most > max_images:
    if share > 1:
      raise EagleError(f"{share} rows have {most} images, they share {max_images} slots")
    raise EagleError(f"a row has {most} images, data.max_images is {max_images}")
  images = np.empty((len(groups), max_images, image_size, image_size, 3), np.uint8)
  for slots, group in zip(images, groups, strict=True):
    used = 0
    for r in group:
      slots[used : used + len(r.images)] = r.images
      used += len(r.images)
    slots[used:] = image.MEAN_COLOUR
  return images


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

  Only targets predicted at a real token of their conversation count: `Batch.targets`.

  Args:
    batch: rows of this process.
    place: where the batch stands, for the message.

  Raises:
    EagleError: if no token is supervised.
  """
  if not np.any(batch.targets()):
    raise EagleError(
      f"{place}: none of its {len(batch.tokens)} rows has a supervised token; "
      f"data.max_length ({batch.tokens.shape[1]} positions) may cut off every answer"
    )
