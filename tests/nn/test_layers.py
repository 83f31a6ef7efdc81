import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.nn import layers


def normals(*shape, key=0):
  return jnp.asarray(np.random.default_rng(key).normal(size=shape), jnp.float32)


def some_params(module, x):
  """Parameters of a module, all of them away from zero and one."""
  leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), x)["params"])
  return tree.unflatten([0.7 + 0.3 * normals(*p.shape, key=i) for i, p in enumerate(leaves)])


@pytest.mark.parametrize("rank", [2, 4])
def test_layer_norm_is_the_textbook_one(rank):
  x = 3 + 2 * normals(*(2, 3, 4, 6)[4 - rank :])
  module = layers.LayerNorm(0.5)
  params = some_params(module, x)
  out = module.apply({"params": params}, x)
  wide = np.asarray(x, np.float64)
  expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 0.5)
  expected = expected * np.asarray(params["scale"]) + np.asarray(params["bias"])
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_rms_norm_does_not_centre():
  x = 3 + normals(2, 5, 6)
  module = layers.RmsNorm(0.5)
  params = some_params(module, x)
  assert list(params) == ["scale"]
  wide = np.asarray(x, np.float64)
  expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 0.5) * np.asarray(params["scale"])
  np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [layers.LayerNorm, layers.RmsNorm])
def test_norms_keep_their_statistics_in_float32(norm):
  x = (1 + normals(4, 256)).astype(jnp.bfloat16)
  module = norm(1e-6, jnp.bfloat16)
  params = module.init(jax.random.key(0), x)
  out = module.apply(params, x)
  exact = norm(1e-6).apply(params, x.astype(jnp.float32))
  assert out.dtype == jnp.bfloat16
  np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


def test_activations_are_the_ones_named():
  points = [-3.0, -0.7, 0.0, 0.4, 2.5]
  x = jnp.asarray(points)
  quick = [v / (1 + math.exp(-1.702 * v)) for v in points]
  exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in points]
  inner = [math.sqrt(2 / math.pi) * (v + 0.044715 * v**3) for v in points]
  tanh = [0.5 * v * (1 + math.tanh(u)) for v, u in zip(points, inner, strict=True)]
  np.testing.assert_allclose(layers.quick_gelu(x), quick, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(layers.gelu(x), exact, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(layers.gelu_tanh(x), tanh, rtol=1e-5, atol=1e-7)
  assert layers.quick_gelu(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_mlp_has_two_layers_with_biases():
  x = normals(2, 3, 4)
  module = layers.Mlp(7, jnp.square)
  p = some_params(module, x)
  assert {k: v["kernel"].shape for k, v in p.items()} == {"fc1": (4, 7), "fc2": (7, 4)}
  rows = np.asarray(x).reshape(6, 4)
  hidden = (rows @ p["fc1"]["kernel"] + np.asarray(p["fc1"]["bias"])[None]) ** 2
  expected = hidden @ p["fc2"]["kernel"] + np.asarray(p["fc2"]["bias"])[None]
  np.testing.assert_allclose(
    module.apply({"params": p}, x).reshape(6, 4), expected, rtol=1e-5, atol=1e-5
  )


def test_gated_mlp_activates_the_gate_alone():
  x = normals(5, 4)
  module = layers.GatedMlp(7, jnp.square)
  p = some_params(module, x)
  assert all(list(p[name]) == ["kernel"] for name in ("gate", "up", "down"))
  x = np.asarray(x)
  expected = ((x @ p["gate"]["kernel"]) ** 2 * (x @ p["up"]["kernel"])) @ p["down"]["kernel"]
  np.testing.assert_allclose(module.apply({"params": p}, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_patch_embed_is_a_convolution_with_its_kernel_as_stride(use_bias):
  x = normals(2, 6, 9, 5)
  module = layers.PatchEmbed(4, 3, use_bias=use_bias)
  p = some_params(module, x)
  assert set(p) == ({"kernel", "bias"} if use_bias else {"kernel"})
  expected = jax.lax.conv_general_dilated(
    x, p["kernel"], (3, 3), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  if use_bias:
    expected = expected + p["bias"].reshape(1, 1, 1, 4)
  np.testing.assert_allclose(module.apply({"params": p}, x), expected, rtol=1e-5, atol=1e-5)


def test_patch_embed_refuses_a_remainder():
  with pytest.raises(EagleError, match="patch 4 and picture 8x10"):
    layers.PatchEmbed(4, 4, name="patches").init(jax.random.key(0), normals(1, 8, 10, 3))


class Step(nn.Module):
  """A residual step with one extra operand."""

  @nn.compact
  def __call__(self, x, shift):
    x = x + jnp.tanh(nn.Dense(x.shape[-1], name="dense")(x)) + shift
    self.sow("probes", "block", x)
    return x, None


@pytest.mark.parametrize("remat", ["none", "block"])
def test_stack_is_a_loop_over_its_leading_axis(remat):
  x, shift = normals(2, 3), normals(2, 3, key=1)
  module = layers.stack(Step, 4, remat=remat)()
  params = module.init(jax.random.key(0), x, shift)["params"]
  assert params["dense"]["kernel"].shape == (4, 3, 3)
  assert not np.array_equal(params["dense"]["kernel"][0], params["dense"]["kernel"][1])

  def loop(params, x):
    outs = []
    for n in range(4):
      x, _ = Step().apply({"params": jax.tree.map(lambda leaf, n=n: leaf[n], params)}, x, shift)
      outs.append(x)
    return jnp.stack(outs)

  (out, _), probes = module.apply({"params": params}, x, shift, mutable="probes")
  np.testing.assert_allclose(probes["probes"]["block"][0], loop(params, x), rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(out, probes["probes"]["block"][0][-1])
  grads = [
    jax.grad(lambda p, f=f: f(p).sum())(params)["dense"]["kernel"]
    for f in (
      lambda p: module.apply({"params": p}, x, shift)[0],
      lambda p: loop(p, x)[-1],
    )
  ]
  np.testing.assert_allclose(*grads, rtol=1e-5, atol=1e-6)


def test_stack_names_the_nearest_policy():
  with pytest.raises(EagleError, match="did you mean 'block'"):
    layers.stack(Step, 2, remat="blocks")
