import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.nn import pixels

LEVELS = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 2, 3))


@pytest.mark.parametrize("function", [pixels.normalise, jax.jit(pixels.normalise)])
def test_every_level_of_every_colour_is_the_originals_to_the_last_bit(function):
  unit = (LEVELS.astype(np.float64) * (1 / 255)).astype(np.float32)
  mean, deviation = np.float32(pixels.CLIP_MEAN), np.float32(pixels.CLIP_STD)
  out = function(jnp.asarray(LEVELS))
  assert out.dtype == jnp.float32
  np.testing.assert_array_equal(out, (unit - mean) / deviation)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_floats_pass_unchanged(dtype):
  x = jnp.ones((1, 2, 2, 3), dtype)
  assert pixels.normalise(x) is x


def test_denormalise_leads_back_without_rounding_to_levels():
  back = np.asarray(pixels.denormalise(pixels.normalise(jnp.asarray(LEVELS))))
  np.testing.assert_allclose(back, LEVELS, rtol=0, atol=1e-4)
  black = np.asarray(pixels.denormalise(jnp.zeros((1, 1, 3))))[0, 0]
  np.testing.assert_allclose(black, 255 * np.asarray(pixels.CLIP_MEAN), rtol=1e-6)


def test_denormalise_works_in_the_dtype_it_gets():
  """As the original does, half precision included: about a grey level is lost."""
  half = pixels.denormalise(pixels.normalise(jnp.asarray(LEVELS)).astype(jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  error = np.abs(np.asarray(half, np.float32) - LEVELS).max()
  assert 0.1 < error < 2
