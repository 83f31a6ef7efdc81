"""The operations of updates, against an independent account of the same shapes."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from eagle_jax import config
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.train import stages, work
from eagle_jax.types import PLACEHOLDER, Batch


def measure(stage, model):
  eagle = eagle_lib.build(model)
  flat = traverse_util.flatten_dict(eagle_lib.abstract_params(eagle), sep="/")
  shapes = {path: leaf.shape for path, leaf in flat.items()}
  experiment = config.Experiment(name="x", stage=stage, model=model)
  return work.measure(eagle, shapes, stages.treatments(experiment, shapes))


def test_what_a_batch_holds_is_counted():
  """One row of two conversations and padding, one that is all padding but a word."""
  tokens = np.array([[5, PLACEHOLDER, PLACEHOLDER, 6, 7, 8, 0], [9, 0, 0, 0, 0, 0, PLACEHOLDER]])
  positions = np.array([[0, 1, 2, 3, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0]])
  valid = np.array([[1, 1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0]], bool)
  batch = Batch(
    images=np.zeros((2, 1, 2, 2, 3), np.uint8),
    tokens=tokens.astype(np.int32),
    valid=valid,
    loss_mask=valid,
    positions=positions.astype(np.int32),
  )
  assert jax.tree.map(float, jax.jit(work.counts)(batch)) == {
    work.TOKENS: 7.0,
    work.IMAGE_TOKENS: 2.0,
    work.POSITIONS: 14.0,
    work.PAIRS: 1 + 2 + 3 + 4 + 1 + 2 + 1,
  }


# An analytic account written for this project by others, from the published shapes: TFLOP of
# one sample with one picture, 1024 image tokens, CLIP at 336 pixels.
@pytest.mark.parametrize(
  ("stage", "model", "text", "targets", "published"),
  [
    pytest.param("pretrain", {"language": "vicuna_7b"}, 40, 40, 43.864, marks=pytest.mark.slow),
    pytest.param("finetune", {"language": "llama3_8b"}, 480, 240, 111.291, marks=pytest.mark.slow),
    ("prealign", {"language": "vicuna_7b", "experts": ("clip",)}, 480, 240, 42.137),
  ],
)
def test_the_real_models_need_what_an_independent_account_says(
  stage, model, text, targets, published
):
  needed = measure(stage, config.Model(**model))
  length = 1024 + text
  held = {
    work.TOKENS: length,
    work.IMAGE_TOKENS: 1024,
    work.PAIRS: length**2 / 2,
    work.TARGETS: targets,
  }
  # Here SAM's padded windows and the resizing count, there only what is needed of them.
  assert needed.of(held) / 1e12 == pytest.approx(published, rel=0.005)
  assert needed.of({**held, work.IMAGE_TOKENS: 0}) == pytest.approx(
    needed.of(held) - needed.image, rel=1e-12
  )


def test_what_is_frozen_needs_no_gradient_of_its_own():
  model = config.Model(experts=("clip@demo",), language="demo", image_size=64, grid_side=2)
  size = eagle_lib.build(model).size.language
  needed = measure("finetune", model)
  kernels = size.width * size.head_dim * (size.num_heads + size.num_kv_heads) * 2
  kernels += 3 * size.width * size.mlp_width
  assert needed.token == 6 * size.depth * kernels
  assert needed.target == 6 * size.width * size.vocab
  assert needed.pair == 12 * size.depth * size.num_heads * size.head_dim
  frozen = measure("pretrain", model)
  assert frozen.token == pytest.approx(needed.token * 2 / 3)
  assert frozen.image < needed.image
