"""The optimizer against its definition, written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import config
from eagle_jax.sharding.mesh import make_mesh
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


def test_moments_in_bfloat16_take_half_and_lie_like_their_parameters():
  mesh = make_mesh(config.Mesh(fsdp=8))
  spread = NamedSharding(mesh, PartitionSpec("fsdp"))
  params = {"kernel": jax.device_put(jnp.ones((16, 4)), spread)}
  size = {}
  for dtype in ("float32", "bfloat16"):
    tx = optimizer.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, dtype=dtype)
    moments = tx.init(params)
    assert moments.nu["kernel"].sharding == spread
    updates, moments = tx.update(params, moments)
    assert updates["kernel"].dtype == jnp.float32
    size[dtype] = sum(leaf.nbytes for leaf in jax.tree.leaves((moments.mu, moments.nu)))
  assert size["float32"] == 2 * size["bfloat16"]


def test_moments_in_bfloat16_follow_gradients_that_grow_and_shrink():
  params = {"kernel": jnp.zeros((200,))}
  found = {}
  for dtype in ("float32", "bfloat16"):
    tx = optimizer.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, dtype=dtype)
    update, moments = jax.jit(tx.update), tx.init(params)
    draw = np.random.default_rng(0)
    found[dtype] = []
    for scale in (1.0, 0.1, 3.0):
      for _ in range(500):
        grads = {"kernel": jnp.asarray(scale * draw.normal(size=200), jnp.float32)}
        _, moments = update(grads, moments)
      found[dtype].append(np.asarray(moments.nu["kernel"], np.float32))
  for wide, narrow in zip(found["float32"], found["bfloat16"], strict=True):
    np.testing.assert_allclose(narrow.mean(), wide.mean(), rtol=0.02)
    np.testing.assert_allclose(narrow, wide, rtol=0.1)


def test_rounding_to_bfloat16_is_right_on_average_and_keeps_what_fits():
  x = jnp.array([1.0, -2.5, 1.001, -0.3, 1e-20, 0.0], jnp.float32)
  rounded = [optimizer.dithered(x, jnp.int32(n), jnp.bfloat16) for n in range(1, 513)]
  mean = np.stack([np.asarray(one, np.float64) for one in rounded]).mean(0)
  np.testing.assert_allclose(mean, np.asarray(x, np.float64), rtol=1e-4)
  for one in rounded[:3]:
    np.testing.assert_array_equal(np.asarray(one[jnp.array([0, 1, 5])], np.float32), [1, -2.5, 0])
  assert optimizer.dithered(x, jnp.int32(1), jnp.float32) is x
