import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.nn import resize


def grid(*shape):
  values = np.random.default_rng(0).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def at_corners(x, side):
  """Bilinear resize with fixed corners, cell by cell; coordinates rounded to float32."""
  _, height, width, _ = x.shape
  x = np.asarray(x, np.float64)
  out = np.zeros((x.shape[0], side, side, x.shape[3]))

  def read(length, i):
    source = np.float32(np.float32(length - 1) / np.float32(side - 1)) * np.float32(i)
    low = min(int(source), length - 1)
    return low, min(low + 1, length - 1), float(source - np.float32(low))

  for i, j in np.ndindex(side, side):
    top, bottom, v = read(height, i)
    left, right, u = read(width, j)
    above = x[:, top, left] * (1 - u) + x[:, top, right] * u
    below = x[:, bottom, left] * (1 - u) + x[:, bottom, right] * u
    out[:, i, j] = above * (1 - v) + below * v
  return out


@pytest.mark.parametrize(("height", "width", "side"), [(9, 5, 4), (2, 7, 12), (1, 1, 3)])
def test_align_corners_reads_between_neighbours(height, width, side):
  x = grid(2, height, width, 3)
  out = resize.resize_align_corners(x, side)
  np.testing.assert_allclose(out, at_corners(x, side), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(out[:, 0, 0], x[:, 0, 0])
  np.testing.assert_allclose(out[:, -1, -1], x[:, -1, -1], rtol=1e-5, atol=1e-6)


def test_align_corners_has_the_originals_float32_coordinates():
  """From 1024 to 336 they differ from exact ones by up to 6e-5 of a pixel; goldens see it."""
  ramp = np.broadcast_to(
    np.arange(1024, dtype=np.float32)[None, :, None, None] - 1000, (1, 1024, 2, 1)
  )
  out = np.asarray(resize.resize_align_corners(jnp.asarray(ramp), 336))[0, 320:335, 0, 0]
  single = np.float32(1023) / np.float32(335) * np.arange(320, 335, dtype=np.float32)
  assert np.abs(single - 1023 / 335 * np.arange(320, 335)).max() > 3e-5
  np.testing.assert_allclose(out, single - 1000, rtol=0, atol=5e-6)


def test_align_corners_of_the_same_side_changes_nothing():
  x = grid(1, 4, 4, 2)
  assert resize.resize_align_corners(x, 4) is x


def test_align_corners_needs_two_cells():
  with pytest.raises(EagleError, match="at least 2 cells per side, not 1"):
    resize.resize_align_corners(grid(1, 4, 4, 2), 1)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (16, 40)])
def test_antialias_agrees_with_jax(height, width):
  x = grid(2, 16, 16, 3)
  expected = jax.image.resize(x, (2, height, width, 3), "linear", antialias=True)
  out = resize.resize_antialias(x, height, width)
  np.testing.assert_allclose(out, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("side", [3, 11])
def test_cubic_antialias_agrees_with_jax(side):
  x = grid(1, 5, 5, 3)
  expected = jax.image.resize(x, (1, side, side, 3), "cubic", antialias=True)
  out = resize.resize_cubic_antialias(x, side)
  np.testing.assert_allclose(out, expected, rtol=0, atol=3e-6)


def test_cubic_has_the_weights_of_three_quarters_and_repeats_the_border():
  impulse = jnp.zeros((1, 6, 6, 1)).at[0, :, 2].set(1.0)
  row = np.asarray(resize.resize_cubic(impulse, 12))[0, 5, :, 0]
  near, far = (0.87890625, 0.26171875), (-0.10546875, -0.03515625)  # at 1/4, 3/4, 5/4, 7/4
  kernel = [far[1], far[0], near[1], near[0], near[0], near[1], far[0], far[1]]
  np.testing.assert_allclose(row[1:9], kernel, rtol=0, atol=1e-6)
  assert np.all(row[9:] == 0)
  edge = jnp.zeros((1, 6, 6, 1)).at[0, :, 0].set(1.0)
  row = np.asarray(resize.resize_cubic(edge, 12))[0, 5, :, 0]
  np.testing.assert_allclose(row[0], far[1] + near[1] + near[0], rtol=0, atol=1e-6)
  np.testing.assert_allclose(row[1], far[0] + near[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  "function",
  [
    resize.resize_align_corners,
    resize.resize_cubic,
    resize.resize_cubic_antialias,
    lambda x, side: resize.resize_antialias(x, side, side),
  ],
)
def test_resizes_keep_dtype_and_constants_and_treat_axes_alike(function):
  x = grid(2, 9, 9, 3)
  function = jax.jit(function, static_argnums=1)
  for side in (4, 14):
    np.testing.assert_allclose(function(jnp.full_like(x, 2.5), side), 2.5, rtol=3e-6)
    turned = function(x.swapaxes(1, 2), side).swapaxes(1, 2)
    np.testing.assert_allclose(function(x, side), turned, rtol=1e-5, atol=1e-6)
    half = function(x.astype(jnp.bfloat16), side)
    assert half.dtype == jnp.bfloat16
    exact = function(x.astype(jnp.bfloat16).astype(jnp.float32), side).astype(jnp.bfloat16)
    np.testing.assert_array_equal(half, exact)


def test_pixel_unshuffle_orders_channels_then_rows_then_columns():
  x = grid(2, 4, 6, 3)
  out = resize.pixel_unshuffle(x, 2)
  assert out.shape == (2, 2, 3, 12)
  for c, dy, dx in np.ndindex(3, 2, 2):
    np.testing.assert_array_equal(out[..., c * 4 + dy * 2 + dx], x[:, dy::2, dx::2, c])


def test_pixel_unshuffle_refuses_a_remainder():
  with pytest.raises(EagleError, match="2 must divide both sides of 4x5"):
    resize.pixel_unshuffle(grid(1, 4, 5, 3), 2)
