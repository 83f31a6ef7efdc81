"""Pillow's own memory as an array, and memory that is used again."""

import gc

import numpy as np
import pytest
from PIL import Image

from eagle_jax.data import pixels


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (2500, 2000)])  # the last lies in pieces
def test_a_view_holds_the_bytes_of_a_picture_that_is_gone(size):
  want = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
  views = [pixels.view(Image.fromarray(want)) for _ in range(3)]
  gc.collect()
  for got in views:
    assert got.shape == (*size[::-1], 4)
    np.testing.assert_array_equal(got[..., :3], want)


def test_a_pillow_that_tells_no_place_is_copied(monkeypatch):
  monkeypatch.delattr(Image.Image, "__arrow_c_array__")
  got = pixels.view(Image.new("RGB", (3, 2), (1, 2, 3)))
  assert got[..., :3].tolist() == [[[1, 2, 3]] * 3] * 2


def test_room_is_used_again_only_when_no_view_of_it_is_left(monkeypatch):
  monkeypatch.setattr(pixels, "_free", [])
  first = pixels.room((4, 100))
  place = first.ctypes.data
  part = first[2:].reshape(-1)
  part[:] = 7
  del first
  gc.collect()
  other = pixels.room((4, 100))
  other[:] = 1
  assert (part == 7).all()
  del part
  gc.collect()
  again = pixels.room((300,))
  assert again.ctypes.data == place
  assert pixels.room((10,)).ctypes.data not in (place, other.ctypes.data)


def test_little_is_kept(monkeypatch):
  monkeypatch.setattr(pixels, "_free", [])
  held = [pixels.room((10,)) for _ in range(9)]
  del held
  gc.collect()
  assert len(pixels._free) == pixels._MOST_FREE
