"""The optimizer against its definition, written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.train import optimizer
from eagle_jax.train.stages import Treatment


def test_the_schedule_warms_up_linearly_and_ends_at_zero():
  rate = optimizer.learning_rate(config.Optimizer(peak_lr=1.0, warmup_fraction=0.25), 8)
  got = [float(rate(step)) for step in range(9)]
  cosine = [0.5 * (1 + math.cos(math.pi * (s - 2) / 6)) for s in range(2, 9)]
  np.testing.assert_allclose(got, [0.0, 0.5, *cosine], atol=1e-6)


def test_without_warmup_the_first_update_has_the_peak_rate():
  rate = optimizer.learning_rate(config.Optimizer(peak_lr=3.0, warmup_fraction=0.0), 10)
  assert float(rate(0)) == 3.0


@pytest.mark.parametrize(("norm", "factor"), [(0.5, 1.0), (4.0, 1.0 / (4.0 + 1e-6))])
def test_clipping_scales_only_what_is_too_long(norm, factor):
  tx = optimizer.clip_by_global_norm(1.0)
  grads = {"a": jnp.array([norm * 0.6]), "b": jnp.array([norm * 0.8])}
  got, _ = tx.update(grads, tx.init(grads))
  np.testing.assert_allclose(got["a"], [norm * 0.6 * factor], rtol=1e-6)


def adamw(params, grads, settings, *, rates, decay, factor):
  """AdamW on one tensor in float64, update by update."""
  mu = nu = np.zeros_like(params)
  for count, rate in enumerate(rates, 1):
    mu = settings.b1 * mu + (1 - settings.b1) * grads
    nu = settings.b2 * nu + (1 - settings.b2) * grads**2
    mean, square = mu / (1 - settings.b1**count), nu / (1 - settings.b2**count)
    step = mean / (np.sqrt(square) + settings.eps) + settings.weight_decay * decay * params
    params = params - rate * factor * step
  return params


def test_updates_follow_the_formula_with_their_factor_and_decay():
  settings = config.Optimizer(peak_lr=0.1, warmup_fraction=0.0, weight_decay=0.5)
  chosen = {
    "kernel": Treatment(trained=True, lr=2.0, decay=True),
    "bias": Treatment(trained=True, lr=1.0, decay=False),
  }
  tx = optimizer.make(settings, 4, chosen)
  start = {"kernel": np.array([1.0, -2.0]), "bias": np.array([0.5, 3.0])}
  grads = {"kernel": np.array([0.3, -0.1]), "bias": np.array([-0.2, 0.4])}
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start)
  jgrads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), grads)
  state = tx.init(params)
  for _ in range(4):
    updates, state = tx.update(jgrads, state, params)
    params = jax.tree.map(jnp.add, params, updates)
  schedule = optimizer.learning_rate(settings, 4)
  rates = [float(schedule(step)) for step in range(4)]
  for path, treatment in chosen.items():
    want = adamw(
      start[path], grads[path], settings, rates=rates, decay=treatment.decay, factor=treatment.lr
    )
    np.testing.assert_allclose(params[path], want, rtol=2e-5)
