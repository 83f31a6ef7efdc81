import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.nn.attention import SelfAttention, attend, attend_in_parts

jitted = jax.jit(functools.partial(attend, scale=1.0))


def inputs(heads=4, kv_heads=4, batch=2, queries=3, keys=5):
  draw = np.random.default_rng(heads + kv_heads).normal
  shapes = ((batch, queries, heads, 6), (batch, keys, kv_heads, 6), (batch, keys, kv_heads, 6))
  return tuple(jnp.asarray(draw(size=shape), jnp.float32) for shape in shapes)


def by_hand(query, key, value, *, scale, bias=None, mask=None):
  """Attention in float64, one query and head at a time."""
  query, key, value = (np.asarray(a, np.float64) for a in (query, key, value))
  batch, length, heads, _ = query.shape
  group = heads // key.shape[2]
  shape = (batch, heads, length, key.shape[1])
  bias = np.broadcast_to(0.0 if bias is None else np.asarray(bias), shape)
  mask = np.broadcast_to(True if mask is None else np.asarray(mask), shape)
  out = np.zeros_like(query)
  for b, t, h in np.ndindex(batch, length, heads):
    scores = scale * key[b, :, h // group] @ query[b, t, h] + bias[b, h, t]
    weights = np.where(mask[b, h, t], np.exp(scores), 0)
    out[b, t, h] = weights @ value[b, :, h // group] / weights.sum()
  return out


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
def test_query_heads_share_key_heads_in_order(heads, kv_heads):
  q, k, v = inputs(heads, kv_heads)
  expected = by_hand(q, k, v, scale=0.4)
  out = jitted(0.4 * q, k, v)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_the_queries_see_what_all_of_them_see(parts):
  q, k, v = inputs(queries=4)
  vectors = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)  # [T, S]
  out = attend_in_parts(
    *(q, k, v),
    scale=0.4,
    bias=lambda part, some: jnp.einsum("bthd,ts->bhts", part, some),
    operands=vectors.reshape(parts, -1, 5),
  )
  bias = np.einsum("bthd,ts->bhts", q, vectors)
  np.testing.assert_allclose(out, by_hand(q, k, v, scale=0.4, bias=bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (2, 1, 3, 5), (1, 6, 3, 5)])
def test_bias_and_mask_repeat_axes_of_length_one(shape):
  q, k, v = inputs(6, 2)
  draw = np.random.default_rng(3)
  bias = draw.normal(size=shape).astype(np.float32)
  mask = draw.random(shape) < 0.6
  mask[..., 0] = True
  out = jitted(q, k, v, bias=jnp.asarray(bias), mask=jnp.asarray(mask))
  expected = by_hand(q, k, v, scale=1.0, bias=bias, mask=mask)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
  without = by_hand(q, k, v, scale=1.0, mask=mask)
  assert np.abs(expected - without).max() > 0.01


def test_a_query_that_sees_nothing_stays_finite():
  q, k, v = inputs()
  mask = jnp.zeros((1, 1, 3, 5), bool)
  out = jitted(q, k, v, mask=mask)
  mean = np.broadcast_to(np.asarray(v).mean(1, keepdims=True), q.shape)
  np.testing.assert_allclose(out, mean, rtol=1e-5, atol=1e-6)


def test_hidden_keys_get_no_gradient():
  q, k, v = inputs()
  mask = (jnp.arange(5) < 3).reshape(1, 1, 1, 5)
  total = lambda k, v: jnp.square(attend(q, k, v, scale=1.0, mask=mask)).sum()
  for grad in jax.jit(jax.grad(total, argnums=(0, 1)))(k, v):
    assert np.all(np.asarray(grad[:, 3:]) == 0)
    assert np.any(np.asarray(grad[:, :3]) != 0)


def test_bfloat16_keeps_its_dtype_and_softmax_its_precision():
  q, k, v = (a.astype(jnp.bfloat16) for a in inputs())
  q = 8 * q  # scores of which bfloat16 would lose whole units

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(q):
    out = attend(q, k, v, scale=1.0)
    return out.astype(jnp.float32).sum(), out

  (_, out), grad = run(q)
  assert grad.dtype == out.dtype == jnp.bfloat16
  expected = by_hand(*(np.asarray(a, np.float32) for a in (q, k, v)), scale=1.0)
  np.testing.assert_allclose(np.asarray(out, np.float32), expected, rtol=0, atol=0.02)


def test_heads_must_divide():
  q, k, v = inputs(4, 3)
  with pytest.raises(EagleError, match="they are 3 and 4"):
    attend(q, k, v, scale=1.0)


@pytest.mark.parametrize("use_bias", [True, False])
def test_self_attention_is_projections_around_attend(use_bias):
  draw = np.random.default_rng(0).normal
  x = draw(size=(2, 5, 8)).astype(np.float32)
  module = SelfAttention(4, 3, scale=0.7, use_bias=use_bias)
  shapes = jax.eval_shape(module.init, jax.random.key(1), x)["params"]
  params = jax.tree.map(lambda a: draw(size=a.shape).astype(np.float32), shapes)
  assert params["query"]["kernel"].shape == (8, 12)
  assert params["out"]["kernel"].shape == (12, 8)
  mask = (np.arange(5) < 4).reshape(1, 1, 1, 5)

  def dense(name, x):
    layer = params[name]
    return x @ layer["kernel"] + layer.get("bias", np.zeros(1, np.float32)).reshape(1, 1, -1)

  q, k, v = (dense(name, x).reshape(2, 5, 4, 3) for name in ("query", "key", "value"))
  expected = dense("out", by_hand(q, k, v, scale=0.7, mask=mask).reshape(2, 5, 12))
  out = jax.jit(module.apply)({"params": params}, x, mask)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
