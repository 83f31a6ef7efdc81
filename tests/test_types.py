"""The batch is a pytree whose fields survive a trip through the device."""

import jax
import numpy as np

from eagle_jax.types import PLACEHOLDER, Batch


def test_a_batch_maps_like_a_tree():
  batch = Batch(
    images=np.zeros((2, 0, 4, 4, 3), np.uint8),
    tokens=np.full((2, 3), PLACEHOLDER, np.int32),
    valid=np.ones((2, 3), bool),
    loss_mask=np.zeros((2, 3), bool),
    positions=np.zeros((2, 3), np.int32),
  )
  doubled = jax.tree.map(lambda x: np.concatenate([x, x]), batch)
  assert doubled.images.shape == (4, 0, 4, 4, 3)
  assert doubled.tokens.shape == (4, 3)
  assert (doubled.tokens == PLACEHOLDER).all()
