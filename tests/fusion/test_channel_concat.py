import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.fusion import FUSIONS


def test_tokens_run_over_rows_first_and_channels_in_list_order():
  first = np.arange(2 * 2 * 3 * 1).reshape(2, 2, 3, 1)
  second = 100 + np.arange(2 * 2 * 3 * 2).reshape(2, 2, 3, 2)
  tokens = FUSIONS["channel_concat"]().apply({}, [jnp.asarray(first), jnp.asarray(second)])
  assert tokens.shape == (2, 6, 3)
  for row in range(2):
    for column in range(3):
      want = np.concatenate([first[:, row, column], second[:, row, column]], axis=-1)
      np.testing.assert_array_equal(tokens[:, row * 3 + column], want)


def test_one_grid_is_only_flattened():
  grid = jax.random.normal(jax.random.key(0), (2, 4, 4, 5))
  tokens = FUSIONS["channel_concat"]().apply({}, (grid,))
  np.testing.assert_array_equal(tokens, grid.reshape(2, 16, 5))


def test_has_no_parameters():
  assert FUSIONS["channel_concat"]().init(jax.random.key(0), [jnp.ones((1, 2, 2, 3))]) == {}


def test_grids_of_two_sides_are_refused_with_both_sides():
  grids = [jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 2))]
  with pytest.raises(EagleError, match=r"\(4, 4\), \(2, 2\)"):
    FUSIONS["channel_concat"]().apply({}, grids)
