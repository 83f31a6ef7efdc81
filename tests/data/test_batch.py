import numpy as np
import pytest
from PIL import Image

from eagle_jax.data import batch, canvas, image
from eagle_jax.data.batch import Row
from eagle_jax.data.tokenize import Encoded
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER

P = PLACEHOLDER


def encoded(ids, supervised=()):
  mask = np.isin(np.arange(len(ids)), list(supervised))
  return Encoded(np.array(ids, np.int32), mask)


def pictures(*levels):
  return np.array([np.full((2, 2, 3), n) for n in levels], np.uint8).reshape(-1, 2, 2, 3)


def row(ids, supervised=(), levels=(), *, tokens_per_image=3, max_length=None):
  return batch.row(
    encoded(ids, supervised),
    pictures(*levels),
    tokens_per_image=tokens_per_image,
    max_length=max_length,
  )


def packed(*samples):
  joined = [np.concatenate([getattr(s, field) for s in samples]) for field in Row._fields[:3]]
  return Row(*joined, samples=tuple(len(s.tokens) for s in samples))


def collate(rows, **options):
  known = {"lengths": (8,), "max_images": 2, "image_size": 2, "pad_id": 9, **options}
  return batch.collate(rows, **known)


def test_placeholders_take_the_positions_of_their_pictures():
  made = row([1, P, 5, P, 6], supervised=[4], levels=[10, 20])
  assert made.tokens.tolist() == [1, P, P, P, 5, P, P, P, 6]
  assert made.loss_mask.tolist() == [False] * 8 + [True]
  assert made.images[:, 0, 0, 0].tolist() == [10, 20]


def test_a_row_is_cut_after_expansion_even_through_a_picture():
  made = row([1, P, 5], supervised=[2], levels=[10], max_length=3)
  assert made.tokens.tolist() == [1, P, P]
  assert not made.loss_mask.any()


def test_placeholders_and_pictures_must_agree():
  with pytest.raises(EagleError, match="1 placeholders and 2 images"):
    row([1, P], levels=[1, 2])


@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side(left):
  rows = [row([1, 2, 3], supervised=[2]), row([1, P, 4], supervised=[2], levels=[7])]
  made = collate(rows, left=left)
  assert made.tokens.shape == (2, 8)
  valid = np.array([[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]], bool)
  if left:
    valid = valid[:, ::-1]
  np.testing.assert_array_equal(made.valid, valid)
  assert made.tokens[0][made.valid[0]].tolist() == [1, 2, 3]
  assert made.tokens[1][made.valid[1]].tolist() == [1, P, P, P, 4]
  assert (made.tokens[~made.valid] == 9).all()
  assert made.positions[1][made.valid[1]].tolist() == [0, 1, 2, 3, 4]
  assert (made.positions[~made.valid] == 0).all()
  assert made.tokens[made.loss_mask].tolist() == [3, 4]


@pytest.mark.parametrize("left", [False, True])
def test_packed_samples_are_numbered_and_count_their_own_positions(left):
  samples = [row([1, P, 4], supervised=[2], levels=[7]), row([5, 6], supervised=[0, 1])]
  made = collate([packed(*samples), packed(samples[1])], left=left)
  assert made.segments.dtype == np.int32
  for b, (numbers, positions) in enumerate(
    [([1, 1, 1, 1, 1, 2, 2], [0, 1, 2, 3, 4, 0, 1]), ([1, 1], [0, 1])]
  ):
    assert made.segments[b][made.valid[b]].tolist() == numbers
    assert made.positions[b][made.valid[b]].tolist() == positions
  np.testing.assert_array_equal(made.valid, made.segments > 0)
  # Token 5 is a target that nothing of its conversation predicts.
  assert made.tokens[:, 1:][made.targets()].tolist() == [4, 6, 6]


def test_without_packing_there_are_no_segments():
  assert collate([row([1, 2])]).segments is None


def test_rows_that_share_slots_fill_them_one_after_another():
  rows = [row([1, P], levels=[7]), row([2]), row([3]), row([P, P], levels=[8, 9])]
  made = collate(rows, share=2)
  assert made.images.shape == (2, 2, 2, 2, 3)
  mean = image.MEAN_COLOUR[0]
  assert made.images[:, :, 0, 0, 0].tolist() == [[7, mean], [8, 9]]
  with pytest.raises(EagleError, match="2 rows have 3 images, they share 2 slots"):
    collate([rows[0], rows[3]], share=2)
  with pytest.raises(EagleError, match="must divide the rows of a batch: 2, 3"):
    collate(rows[:3], share=2)


def test_types_and_unused_slots():
  made = collate([row([1, 2]), row([1, P], levels=[7])])
  assert made.images.shape == (2, 2, 2, 2, 3)
  assert made.images.dtype == np.uint8
  assert made.tokens.dtype == made.positions.dtype == np.int32
  assert made.valid.dtype == made.loss_mask.dtype == bool
  assert (made.images[0] == image.MEAN_COLOUR).all()
  assert (made.images[1, 0] == 7).all()
  assert (made.images[1, 1] == image.MEAN_COLOUR).all()


def test_without_picture_slots_there_are_no_pictures():
  assert collate([row([1, 2])], max_images=0).images.shape == (1, 0, 2, 2, 3)


def test_drawn_pictures_stand_on_a_canvas_in_the_order_of_their_slots():
  def rows(*counts):
    return [row([1, *[P] * n], levels=range(first, first + n)) for first, n in counts]

  def drawn(squares):
    pictures = [canvas.draw(Image.fromarray(p), 2, "pad") for p in squares.images]
    return squares._replace(images=tuple(pictures))

  options = {"lengths": (8,), "max_images": 3, "image_size": 2, "pad_id": 9, "share": 2}
  given = rows((10, 1), (20, 2), (30, 0), (40, 1))
  want = batch.collate(given, **options)
  made = batch.on_canvas([drawn(each) for each in given], **options)
  for name in ("tokens", "valid", "loss_mask", "positions"):
    np.testing.assert_array_equal(getattr(made.batch, name), getattr(want, name))
  assert made.batch.images.shape == (2, 0, 2, 2, 3)
  assert made.canvas.pixels.shape == (6, 512, 512, 4)
  used = [0, 1, 2, 3]  # then the group's unused slots
  assert made.canvas.pixels[used, 1, 1, 0].tolist() == [10, 20, 21, 40]
  assert made.canvas.pixels[4:, 0, 0, :3].tolist() == [list(image.MEAN_COLOUR)] * 2
  with pytest.raises(EagleError, match="2 rows have 3 images, they share 2 slots"):
    batch.on_canvas([drawn(each) for each in given], **{**options, "max_images": 2})
  alone = batch.on_canvas(rows((0, 0), (0, 0)), **{**options, "max_images": 0})
  assert alone.images.shape == (1, 0, 2, 2, 3)


def test_the_shortest_fitting_length_is_taken():
  rows = [row([1, 2, 3]), row([1, 2, 3, 4, 5])]
  assert collate(rows, lengths=(16, 4, 6)).tokens.shape == (2, 6)
  assert collate(rows[:1], lengths=(16, 4, 6)).tokens.shape == (1, 4)
  with pytest.raises(EagleError, match="5 positions, the longest allowed has 4"):
    collate(rows, lengths=(2, 4))


def test_more_pictures_than_slots_are_an_error():
  with pytest.raises(EagleError, match=r"2 images, data\.max_images is 1"):
    collate([row([P, P], levels=[1, 2])], max_images=1)


def test_prompts_stand_on_the_right_and_padding_has_position_one():
  rows = [row([1, 2]), row([1, P, 4], supervised=[2], levels=[7])]
  made = batch.prompt_batch(rows, max_images=1, image_size=2, pad_id=9)
  assert made.tokens.tolist() == [[9, 9, 9, 1, 2], [1, P, P, P, 4]]
  assert made.positions.tolist() == [[1, 1, 1, 0, 1], [0, 1, 2, 3, 4]]
  assert made.positions.dtype == np.int32
  assert not made.loss_mask.any()


def test_a_prompt_is_never_cut():
  made = batch.prompt_batch([row([1, 2])], max_images=0, image_size=2, pad_id=9, lengths=(4, 6))
  assert made.tokens.shape == (1, 4)
  with pytest.raises(EagleError, match="7 positions"):
    batch.prompt_batch([row([1] * 7)], max_images=0, image_size=2, pad_id=9, lengths=(4, 6))


def test_a_batch_must_have_a_target_that_a_real_token_predicts():
  batch.demand_targets(collate([row([1, 2], supervised=[1]), row([1, 2])]), "here")
  for left in (False, True):
    first_only = collate([row([1, 2], supervised=[0]), row([1, 2])], left=left)
    with pytest.raises(EagleError, match="here: none of its 2 rows"):
      batch.demand_targets(first_only, "here")
