import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.nn import rotary


def random(*shape):
  return jax.random.normal(jax.random.key(3), shape)


def planes(real, imaginary):
  return np.asarray(real) + 1j * np.asarray(imaginary)


def test_half_tables_equal_the_closed_form_at_every_position():
  positions = jnp.array([[0, 1, 17], [4095, 2, 0]])
  cos, sin = rotary.rotary(positions, 8, 1e4)
  angles = np.asarray(positions)[..., None] * 1e4 ** (-2 * np.arange(4) / 8)
  angles = np.concatenate([angles, angles], axis=-1)
  np.testing.assert_allclose(cos, np.cos(angles), atol=3e-4)
  np.testing.assert_allclose(sin[0], np.sin(angles[0]), atol=2e-6)
  assert cos.dtype == sin.dtype == jnp.float32


def test_half_rotation_turns_channel_j_with_channel_j_plus_half():
  x = random(1, 3, 2, 4)
  cos, sin = rotary.rotary(jnp.array([[0, 1, 5]]), 4, 100.0)
  out = rotary.apply_rotary_half(x, cos, sin)
  for position, t in enumerate((0, 1, 5)):
    for j in range(2):
      angle = t * 100.0 ** (-2 * j / 4)
      plane = planes(x[0, position, :, j], x[0, position, :, j + 2])
      turned = plane * np.exp(1j * angle)
      np.testing.assert_allclose(out[0, position, :, j], turned.real, atol=1e-5)
      np.testing.assert_allclose(out[0, position, :, j + 2], turned.imag, atol=1e-5)


def test_half_rotation_makes_scores_depend_on_distance_alone():
  query, key = random(1, 1, 1, 16), random(1, 1, 1, 16) + 1

  def score(at_query, at_key):
    turned = [
      rotary.apply_rotary_half(x, *rotary.rotary(jnp.array([[at]]), 16, 1e4))
      for x, at in ((query, at_query), (key, at_key))
    ]
    return jnp.sum(turned[0] * turned[1])

  np.testing.assert_allclose(score(7, 3), score(104, 100), rtol=1e-4)
  assert abs(score(7, 3) - score(3, 7)) > 1e-2


def test_grid_table_squeezes_any_side_to_sixteen_rows_first():
  side, head_dim = 64, 64
  cos, sin = rotary.rotary_grid(side, head_dim)
  assert cos.shape == sin.shape == (side * side, head_dim)
  row, column = 5, 7
  frequencies = np.repeat(10000.0 ** (-2 * np.arange(16) / 32), 2)
  angles = np.concatenate([row / side * 16 * frequencies, column / side * 16 * frequencies])
  np.testing.assert_allclose(cos[row * side + column], np.cos(angles), atol=1e-6)
  np.testing.assert_allclose(sin[row * side + column], np.sin(angles), atol=1e-6)


def test_grid_extent_does_not_follow_the_side():
  quarter = rotary.rotary_grid(4, 16)[1][1]  # column 1 of 4
  np.testing.assert_allclose(quarter, rotary.rotary_grid(16, 16)[1][4], atol=1e-6)


def test_pair_rotation_turns_neighbours():
  x = random(1, 9, 2, 8)
  cos, sin = rotary.rotary_grid(3, 8)
  out = rotary.apply_rotary_pairs(x, cos, sin)
  plane = planes(x[..., 0::2], x[..., 1::2])
  angles = np.arctan2(np.asarray(sin), np.asarray(cos))[:, None, 0::2]
  turned = plane * np.exp(1j * angles)
  np.testing.assert_allclose(out[..., 0::2], turned.real, atol=1e-5)
  np.testing.assert_allclose(out[..., 1::2], turned.imag, atol=1e-5)


def test_rotations_keep_the_dtype_and_turn_in_float32():
  x = random(1, 4, 1, 8)
  tables = rotary.rotary_grid(2, 8)
  half = rotary.rotary(jnp.arange(4)[None] * 1000, 8, 1e4)
  for apply, cos, sin in ((rotary.apply_rotary_pairs, *tables), (rotary.apply_rotary_half, *half)):
    low = x.astype(jnp.bfloat16)
    out = apply(low, cos, sin)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
      out, apply(low.astype(jnp.float32), cos, sin).astype(jnp.bfloat16)
    )
