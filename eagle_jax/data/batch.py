"""Encoded conversations to a `Batch` of static shape.

Source: EAGLE, eagle_arch.py, prepare_inputs_labels_for_multimodal: placeholders are
expanded first and the row is cut afterwards; positions count content alone.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from eagle_jax.data import canvas, image
from eagle_jax.data.canvas import Canvas, Drawn
from eagle_jax.data.tokenize import Encoded
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER, Batch

if typing.TYPE_CHECKING:
  from jaxtyping import Bool, Int32, UInt8

  Square: TypeAlias = UInt8[np.ndarray, "H W 3"]
  Pictures: TypeAlias = UInt8[np.ndarray, "i H W 3"] | tuple[Square | Drawn, ...]


class Row(NamedTuple):
  """One conversation, or several packed, placeholders expanded to N per picture, not padded.

  Attributes:
    images: the pictures, in the order of their placeholders; all squares, or all as drawn
      for a device that makes them square.
    tokens: ids.
    loss_mask: True at targets.
    samples: positions of each packed conversation, in order; empty where nothing is packed.
  """

  images: Pictures
  tokens: Int32[np.ndarray, " s"]
  loss_mask: Bool[np.ndarray, " s"]
  samples: tuple[int, ...] = ()


class OnCanvas(NamedTuple):
  """A batch whose pictures a device has yet to make square: `train.placing`.

  Attributes:
    batch: without its pictures: images [R, 0, H, W, 3].
    canvas: the pictures of all R·I slots, group after group; I is at least 1.
  """

  batch: Batch
  canvas: Canvas


HostBatch: TypeAlias = Batch | OnCanvas
"""A batch as a stream gives it."""


def row(
  encoded: Encoded,
  images: Pictures,
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
    rows: B rows, their pictures squares.
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
    "images": _squares(_slots(rows, share, max_images), max_images, image_size),
    "tokens": tokens,
    "valid": segments > 0,
    "loss_mask": loss_mask,
    "positions": positions,
    "segments": segments if any(r.samples for r in rows) else None,
  }
  return Batch(**arrays)


def on_canvas(
  rows: Sequence[Row], *, max_images: int, image_size: int, share: int = 1, **options: Any
) -> Batch | OnCanvas:
  """Pads rows whose pictures are drawn; arguments and errors as `collate`.

  Returns:
    the batch with its pictures on canvases; as `collate` makes it where it has no slots.
  """
  slots = _slots(rows, share, max_images)
  texts = [r._replace(images=()) for r in rows]
  made = collate(texts, max_images=0, image_size=image_size, share=share, **options)
  if not max_images:
    return made
  unused = canvas.blank(image_size)
  filled = [[*group, *[unused] * (max_images - len(group))] for group in slots]
  return OnCanvas(made, canvas.stack([drawn for group in filled for drawn in group]))


def _slots(rows: Sequence[Row], share: int, max_images: int) -> list[list[Any]]:
  """Returns the pictures of every `share` rows, one after another.

  Raises:
    EagleError: if they are more than the slots, or the rows cannot be dealt out in groups.
  """
  if len(rows) % share:
    raise EagleError(f"data.share must divide the rows of a batch: {share}, {len(rows)}")
  groups = [
    [picture for r in rows[first : first + share] for picture in r.images]
    for first in range(0, len(rows), share)
  ]
  most = max(len(group) for group in groups)
  if most > max_images:
    if share > 1:
      raise EagleError(f"{share} rows have {most} images, they share {max_images} slots")
    raise EagleError(f"a row has {most} images, data.max_images is {max_images}")
  return groups


def _squares(
  groups: Sequence[Sequence[Square]], max_images: int, side: int
) -> UInt8[np.ndarray, "R I {side} {side} 3"]:
  """Returns the pictures of each group, then the mean colour."""
  images = np.empty((len(groups), max_images, side, side, 3), np.uint8)
  for slots, group in zip(images, groups, strict=True):
    for slot, picture in zip(slots, group, strict=False):
      slot[:] = picture
    slots[len(group) :] = image.MEAN_COLOUR
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


def demand_targets(made: HostBatch, place: str) -> None:
  """Checks that a mean over the batch's targets exists.

  Only targets predicted at a real token of their conversation count: `Batch.targets`.

  Args:
    made: rows of this process.
    place: where the batch stands, for the message.

  Raises:
    EagleError: if no token is supervised.
  """
  batch = made.batch if isinstance(made, OnCanvas) else made
  if not np.any(batch.targets()):
    raise EagleError(
      f"{place}: none of its {len(batch.tokens)} rows has a supervised token; "
      f"data.max_length ({batch.tokens.shape[1]} positions) may cut off every answer"
    )
