import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import vision
from eagle_jax.errors import EagleError
from eagle_jax.model.mixture import Mixture
from eagle_jax.nn.pixels import normalise
from eagle_jax.nn.resize import resize_align_corners


@dataclasses.dataclass(frozen=True)
class PoolSize:
  image_size: int
  side: int
  channels: int = 3


class Pool(nn.Module):
  """An expert that only averages cells, and says what it was given."""

  size: PoolSize
  dtype: object
  remat: str

  @nn.compact
  def __call__(self, pixels):
    self.sow("probes", "pixels", pixels)
    gain = self.param("gain", nn.initializers.ones, (1,))
    return (_pool(pixels, self.size.side) * gain[None, None, None]).astype(self.dtype)


def _pool(pixels, side):
  """Means of the cells of a side × side grid."""
  rows, height, width, channels = pixels.shape
  cells = pixels.reshape(rows, side, height // side, side, width // side, channels)
  return cells.mean(axis=(2, 4))


@pytest.fixture(autouse=True)
def _pools(monkeypatch):
  for name in ("first", "second"):
    monkeypatch.setitem(vision.EXPERTS, name, types.SimpleNamespace(module=Pool))


def _images(count=2, side=16):
  return jax.random.randint(jax.random.key(0), (count, side, side, 3), 0, 256).astype(jnp.uint8)


def _run(mixture, images):
  variables = mixture.init(jax.random.key(0), images)
  grids, probes = mixture.apply(
    {"params": variables["params"]}, images, mutable=["probes"], method="__call__"
  )
  return grids, variables["params"], probes["probes"]


def test_each_expert_sees_its_size_and_every_grid_gets_the_common_side():
  experts = (("first", PoolSize(16, 4)), ("second", PoolSize(8, 2)))
  grids, params, probes = _run(Mixture(experts, 4), _images())
  assert list(params) == ["first", "second"]
  assert [grid.shape for grid in grids] == [(2, 4, 4, 3)] * 2
  pixels = normalise(_images())
  np.testing.assert_array_equal(probes["first"]["pixels"][0], pixels)
  small = resize_align_corners(pixels, 8)
  np.testing.assert_array_equal(probes["second"]["pixels"][0], small)
  pooled = _pool(small, 2)
  np.testing.assert_array_equal(grids[1], resize_align_corners(pooled, 4))


def test_a_grid_of_the_common_side_is_left_as_it_is():
  grids, _, _ = _run(Mixture((("first", PoolSize(16, 4)),), 4), _images())
  pooled = _pool(normalise(_images()), 4)
  np.testing.assert_array_equal(grids[0], pooled)


def test_the_order_of_the_experts_is_the_order_of_the_grids():
  first, second = ("first", PoolSize(16, 4)), ("second", PoolSize(16, 2))
  forward, _, _ = _run(Mixture((first, second), 2), _images())
  backward, _, _ = _run(Mixture((second, first), 2), _images())
  np.testing.assert_array_equal(forward[0], backward[1])
  np.testing.assert_array_equal(forward[1], backward[0])


def test_normalised_pixels_are_taken_as_they_are():
  mixture = Mixture((("first", PoolSize(16, 4)),), 4)
  whole, params, _ = _run(mixture, _images())
  same = mixture.apply({"params": params}, normalise(_images()))
  np.testing.assert_array_equal(whole[0], same[0])


def test_pixels_stay_float32_and_grids_take_the_computation_type():
  mixture = Mixture((("first", PoolSize(8, 4)),), 2, dtype=jnp.bfloat16)
  grids, _, probes = _run(mixture, _images())
  assert probes["first"]["pixels"][0].dtype == jnp.float32
  assert grids[0].dtype == jnp.bfloat16


def test_an_unknown_expert_is_named():
  with pytest.raises(EagleError, match="did you mean 'first'"):
    _run(Mixture((("frist", PoolSize(8, 4)),), 2), _images())
