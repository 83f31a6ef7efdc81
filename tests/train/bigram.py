"""A model of one table, for steps that compile in no time."""

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax import config
from eagle_jax.train import optimizer, stages, state
from eagle_jax.types import PLACEHOLDER, Batch

WORDS = 64
SHARP = config.Optimizer(peak_lr=1e-2, warmup_fraction=0.0)


class Bigram:
  """Scores the next word by the present one. Where a picture is bright the slope is endless."""

  def apply(self, variables, batch):
    params = variables["params"]
    table = params["language"]["table"]
    steep = params["projector"]["steep"]
    scores = table[jnp.maximum(batch.tokens, 0)]  # [B, S, V]
    bright = batch.images.astype(jnp.float32).sum()
    return scores + jnp.sqrt(steep + jnp.where(bright > 0, 0.0, 1.0)).reshape(1, 1, WORDS)


def make_state(tx, mesh, dtype=jnp.float32):
  """The state before the first update."""
  params = {
    "language/table": jax.random.normal(jax.random.key(1), (WORDS, WORDS), dtype),
    "projector/steep": jnp.zeros((WORDS,), dtype),
  }
  return state.create(params, chosen(), tx, seed=0, mesh=mesh)


def chosen():
  return dict.fromkeys(("language/table", "projector/steep"), stages.TRAINED)


def make_optimizer(settings):
  return optimizer.make(settings, 10, chosen())


def make_batch(*, bright=False, masked=False, segments=None, pictures=(0, 2)):
  """Four rows of twelve words; those in `pictures` have a placeholder."""
  draw = np.random.default_rng(0)
  tokens = draw.integers(1, WORDS, (4, 12)).astype(np.int32)
  tokens[list(pictures), 3] = PLACEHOLDER
  mask = np.arange(12)[None] > np.array([[4], [6], [8], [5]])
  return Batch(
    images=np.full((4, 1, 2, 2, 3), int(bright), np.uint8),
    tokens=tokens,
    valid=np.ones_like(mask),
    loss_mask=mask & (not masked),
    positions=np.zeros_like(tokens) + np.arange(12, dtype=np.int32),
    segments=segments,
  )
