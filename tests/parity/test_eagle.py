"""The whole model against the original, tensor by tensor along the path of a batch."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.train.step import summed_loss
from tests.parity import goldens, whole

LARGE = 512
"""Pixels per side from which a file runs only under EAGLE_FULL=1."""


def _cases():
  """Every whole-model golden, those of large pictures marked."""
  for golden in goldens.discover("e2e"):
    large = goldens.reference(golden).meta["input_image_size"] >= LARGE
    wanted = os.environ.get("EAGLE_FULL") == "1"
    skip = pytest.mark.skipif(not wanted, reason="large pictures: set EAGLE_FULL=1")
    yield pytest.param(golden, id=str(golden), marks=[skip, pytest.mark.slow] if large else [])


CASES = list(_cases())


@pytest.mark.parametrize("golden", CASES)
def test_the_host_lays_rows_out_as_the_original_merges_them(golden):
  batch = whole.batch(golden)
  np.testing.assert_array_equal(batch.valid, golden["merged_attention_mask"])
  labels = np.where(batch.loss_mask, batch.tokens, whole.IGNORED)
  np.testing.assert_array_equal(labels, golden["merged_labels"])
  if "position_ids_if_requested" in golden:
    np.testing.assert_array_equal(batch.positions, golden["position_ids_if_requested"])


@pytest.mark.parametrize("golden", CASES)
def test_every_step_from_pixels_to_logits(golden):
  steps = whole.forward(golden)
  for tensor in ("vision_features", "projected", "inputs_embeds"):
    if tensor in golden:
      goldens.assert_close(golden, tensor, getattr(steps, tensor))
  # Neither side gives padding a meaning behind the embeddings.
  where = None if steps.batch.valid.all() else steps.batch.valid
  goldens.assert_close(golden, "hidden_after_layer0", steps.hidden_after_layer0, where=where)
  goldens.assert_close(golden, "logits", steps.logits, where=where)
  assert steps.logits.dtype == jnp.float32


@pytest.mark.parametrize("golden", CASES)
def test_the_loss(golden):
  steps = whole.forward(golden)
  counted = steps.batch.targets()
  summed = summed_loss(jnp.asarray(steps.logits), jnp.asarray(steps.batch.tokens), counted)
  goldens.assert_close(golden, "loss", np.float32(summed / counted.sum(dtype=np.float32)))


def test_the_small_files_of_every_case_are_found():
  names = {str(golden) for golden in goldens.discover("e2e")}
  if "EAGLE_GOLDENS" in os.environ:
    assert names
  else:
    cases = ("single", "text_only", "multi", "adjacent")
    mixed = ("mixed", "mixed_leftpad", "mixed_truncate")
    assert names >= {f"e2e_small_x5_{case}" for case in cases + mixed}
    assert names >= {"e2e_small_x4_single", "e2e_small_x4_mixed"}
