import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.language import LANGUAGE_MODELS, cache

SIZE = LANGUAGE_MODELS["tiny"]


def test_empty_has_one_pair_per_layer_with_a_buffer_of_its_own():
  caches = cache.empty(SIZE, rows=3, length=7, dtype=jnp.bfloat16)
  assert len(caches) == SIZE.depth
  arrays = jax.tree.leaves(caches)
  assert all(array.shape == (3, 7, 2, 8) and array.dtype == jnp.bfloat16 for array in arrays)
  pointers = {array.unsafe_buffer_pointer() for array in arrays}
  assert len(pointers) == 2 * SIZE.depth


def test_write_overwrites_the_named_slots_only():
  layer = cache.empty(SIZE, rows=2, length=5, dtype=jnp.float32)[0]
  keys = jnp.ones((2, 2, 2, 8))
  layer = cache.write(layer, keys, 3 * keys, start=1)
  np.testing.assert_array_equal(layer.keys[0, :, 0, 0], [0, 1, 1, 0, 0])
  np.testing.assert_array_equal(layer.values[1, :, 1, 7], [0, 3, 3, 0, 0])


def test_write_keeps_the_type_of_the_cache():
  layer = cache.empty(SIZE, rows=1, length=3, dtype=jnp.bfloat16)[0]
  new = jnp.full((1, 1, 2, 8), 1.001)
  layer = cache.write(layer, new, new, start=jnp.int32(2))
  assert layer.keys.dtype == jnp.bfloat16
  assert layer.keys[0, 2, 0, 0] == 1


def test_read_gives_the_first_slots():
  layer = cache.empty(SIZE, rows=1, length=4, dtype=jnp.float32)[0]
  ramp = jnp.broadcast_to(jnp.arange(4.0)[None, :, None, None], (1, 4, 2, 8))
  keys, values = cache.read(cache.write(layer, ramp, -ramp, start=0), 3)
  np.testing.assert_array_equal(keys[0, :, 0, 0], [0, 1, 2])
  np.testing.assert_array_equal(values[0, :, 0, 0], [0, -1, -2])


def test_a_donated_cache_is_updated_in_place():
  layer = cache.empty(SIZE, rows=1, length=4, dtype=jnp.float32)[0]
  pointer = layer.keys.unsafe_buffer_pointer()
  new = jnp.ones((1, 1, 2, 8))
  written = jax.jit(cache.write, donate_argnums=0)(layer, new, new, start=2)
  assert written.keys.unsafe_buffer_pointer() == pointer
  assert layer.keys.is_deleted()
