"""The batch is a pytree whose fields survive a trip through the device, and knows its targets."""

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


def targets(valid, loss_mask, segments=None):
  valid, loss_mask = np.array(valid, bool), np.array(loss_mask, bool)
  numbers = np.zeros(valid.shape, np.int32)
  segments = None if segments is None else np.array(segments, np.int32)
  images = np.zeros((len(valid), 0, 4, 4, 3), np.uint8)
  return Batch(images, numbers, valid, loss_mask, numbers, segments).targets()


def test_a_target_counts_only_where_a_real_token_predicts_it():
  counted = targets([[0, 1, 1, 1], [1, 1, 0, 0]], [[0, 1, 1, 0], [1, 1, 0, 1]])
  np.testing.assert_array_equal(counted, [[False, True, False], [True, False, False]])


def test_a_target_never_counts_where_another_conversation_predicts_it():
  counted = targets(np.ones((1, 6)), np.ones((1, 6)), [[1, 1, 2, 2, 2, 3]])
  np.testing.assert_array_equal(counted, [[True, False, True, True, False]])
