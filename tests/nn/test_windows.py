import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.nn.windows import partition, unpartition


def grid(height, width):
  return jnp.arange(2 * height * width * 3, dtype=jnp.float32).reshape(2, height, width, 3) + 1


def test_windows_are_row_major_within_each_row_of_the_batch():
  cells = grid(4, 6)
  windows = partition(cells, 2)
  assert windows.shape == (12, 2, 2, 3)
  np.testing.assert_array_equal(windows[0], cells[0, :2, :2])
  np.testing.assert_array_equal(windows[1], cells[0, :2, 2:4])
  np.testing.assert_array_equal(windows[3], cells[0, 2:, :2])
  np.testing.assert_array_equal(windows[6], cells[1, :2, :2])


def test_pads_with_zeros_below_and_to_the_right():
  cells = grid(4, 5)
  windows = partition(cells, 3)
  assert windows.shape == (8, 3, 3, 3)
  last = windows[3]
  np.testing.assert_array_equal(last[:1, :2], cells[0, 3:, 3:])
  assert not np.any(last[1:])
  assert not np.any(last[:, 2:])


@pytest.mark.parametrize(
  ("height", "width", "window"), [(4, 4, 2), (5, 4, 3), (3, 7, 4), (2, 2, 5)]
)
def test_unpartition_is_the_inverse(height, width, window):
  cells = grid(height, width)
  back = unpartition(partition(cells, window), height, width)
  np.testing.assert_array_equal(back, cells)
