import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.nn.rotary import rotary_grid
from eagle_jax.vision.eva02 import SIZES, Attention, Block, Eva02, Eva02Size, SwiGlu

W, G = "window", "global"


BASE = Eva02Size(image_size=8, patch=2, width=8, num_heads=2, kinds=(W,), window=2, pretrain_side=2)


def small(**changes):
  return dataclasses.replace(BASE, **changes)


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def randomised(tree):
  """Fills every leaf, biases and zeros too, with normals."""
  leaves, structure = jax.tree.flatten(tree)
  return structure.unflatten([random(*leaf.shape, seed=7 + n) / 2 for n, leaf in enumerate(leaves)])


@functools.cache
def block(kind, size):
  """A block with random parameters, its input [1, H, W, C] and its tables."""
  module = Block(kind, size, jnp.float32)
  x = random(1, size.grid_side, size.grid_side, size.width)
  tables = rotary_grid(size.window if kind == W else size.grid_side, size.head_dim)
  params = jax.eval_shape(module.init, jax.random.key(1), x, tables)["params"]
  return module, randomised(params), x, tables


def test_released_size_has_the_published_number_of_parameters():
  pixels = jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.float32)
  expert = Eva02(SIZES["released"])
  grid, variables = jax.eval_shape(expert.init_with_output, jax.random.key(0), pixels)
  assert grid.shape == (1, 64, 64, 1024)
  total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert round(total / 1e6, 3) == 303.389


def test_released_blocks_are_global_where_upstream_has_them():
  size = SIZES["released"]
  assert [n for n, kind in enumerate(size.kinds) if kind == G] == [2, 5, 8, 11, 14, 17, 20, 23]
  assert (size.mlp_width, size.head_dim, size.grid_side) == (2730, 64, 64)


def test_keys_have_no_bias_and_rotary_tables_are_no_parameters():
  pixels = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  params = jax.eval_shape(Eva02(small()).init, jax.random.key(0), pixels)["params"]
  attention = params["groups"]["run_0"]["attention"]
  layers = {name: set(layer) for name, layer in attention.items()}
  both = {"kernel", "bias"}
  assert layers == {"query": both, "key": {"kernel"}, "value": both, "out": both}
  assert set(params) == {"patches", "positions", "groups"}


def test_bfloat16_stays_close_to_float32():
  pixels = random(1, 8, 8, 3)
  expert = Eva02(small())
  params = randomised(jax.eval_shape(expert.init, jax.random.key(0), pixels))
  exact = jax.jit(expert.apply)(params, pixels)
  low = jax.jit(expert.clone(dtype=jnp.bfloat16).apply)(params, pixels)
  assert exact.shape == low.shape == (1, 4, 4, 8)
  assert (exact.dtype, low.dtype) == (jnp.float32, jnp.bfloat16)
  error = jnp.linalg.norm(low.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
  assert 0 < error < 0.03


@pytest.mark.parametrize(("kind", "reach"), [(W, 4), (G, 16)])
def test_a_cell_reaches_its_window_or_the_whole_grid(kind, reach):
  module, params, x, tables = block(kind, small())
  apply = jax.jit(lambda x: module.apply({"params": params}, x, tables)[0])
  moved = jnp.any(apply(x) != apply(x.at[0, 0, 0].multiply(-1.0)), axis=-1)[0]
  assert moved.sum() == reach
  assert moved[:2, :2].all()


def norm(x, params):
  centred = x - x.mean(-1, keepdims=True)
  scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  return scaled * params["scale"] + params["bias"]


def swiglu(x, params):
  gate, up = (x @ params[name]["kernel"] + params[name]["bias"] for name in ("gate", "up"))
  hidden = norm(gate / (1 + np.exp(-gate)) * up, params["norm"])
  return hidden @ params["down"]["kernel"] + params["down"]["bias"]


def test_padded_cells_take_part_with_zero_key_and_the_bias_as_value():
  size = small(window=3)  # a grid of 4: windows at rows 0-2 and 3-5
  module, params, x, tables = block(W, size)
  out, x = (np.asarray(a) for a in (jax.jit(module.apply)({"params": params}, x, tables)[0], x))
  # The last window by hand: one real cell at its first place, eight of padding.
  params = jax.tree.map(np.asarray, params)
  normed = norm(x[0, 3, 3], params["attention_norm"])
  p = params["attention"]
  query = normed @ p["query"]["kernel"] + p["query"]["bias"]
  key = normed @ p["key"]["kernel"]
  values = np.tile(p["value"]["bias"], (9, 1))
  values[0] += normed @ p["value"]["kernel"]
  scores = np.zeros((9, 2))  # the first cell's rotation is by nothing, padding has no key
  scores[0] = (query * key).reshape(2, 4).sum(-1) / 2
  weights = np.exp(scores) / np.exp(scores).sum(0)
  mixed = np.einsum("sh,shd->hd", weights, values.reshape(9, 2, 4)).reshape(-1)
  after = x[0, 3, 3] + mixed @ p["out"]["kernel"] + p["out"]["bias"]
  mlp = swiglu(norm(after, params["mlp_norm"]), params["mlp"])
  np.testing.assert_allclose(out[0, 3, 3], after + mlp, rtol=1e-4, atol=1e-5)


def test_attention_depends_on_where_a_cell_is():
  module = Attention(small(), jnp.float32)
  x = jnp.broadcast_to(random(1, 1, 8), (1, 4, 8))
  x = x.at[:, 3].multiply(-1.0)
  tables = rotary_grid(2, 4)
  params = randomised(jax.eval_shape(module.init, jax.random.key(1), x, tables))
  apply = jax.jit(module.apply)
  out = apply(params, x, tables)
  assert jnp.abs(out[0, 0] - out[0, 1]).max() > 1e-3
  still = apply(params, x, (jnp.ones((4, 4)), jnp.zeros((4, 4))))
  np.testing.assert_allclose(still[0, 0], still[0, 1], atol=1e-6)


def test_swiglu_norms_its_hidden_channels():
  module = SwiGlu(6, jnp.float32)
  x = random(1, 1, 2, 4)
  params = randomised(jax.eval_shape(module.init, jax.random.key(1), x)["params"])
  expected = swiglu(np.asarray(x), jax.tree.map(np.asarray, params))
  out = jax.jit(module.apply)({"params": params}, x)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_the_class_row_of_the_position_table_is_never_read():
  expert = Eva02(small())
  pixels = random(1, 8, 8, 3)
  params = randomised(jax.eval_shape(expert.init, jax.random.key(0), pixels)["params"])
  loss = lambda p: jnp.sum(expert.apply({"params": p}, pixels) ** 2)
  gradient = jax.jit(jax.grad(loss))(params)["positions"]
  assert gradient.shape == (1, 5, 8)
  assert not jnp.any(gradient[:, 0])
  assert jnp.all(jnp.any(gradient[:, 1:] != 0, axis=-1))
