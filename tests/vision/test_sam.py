import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax.plan import collectives, hlo
from eagle_jax.vision import sam
from eagle_jax.vision.sam import SIZES, Block, Sam, SamSize, by_distance, relative_bias

W, G = "window", "global"


BASE = SamSize(
  image_size=8,
  patch=2,
  width=8,
  num_heads=2,
  kinds=(W,),
  window=2,
  rows_at_once=2,
  neck_width=3,
)


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
  """A block with random parameters and its input [1, H, W, C]."""
  module = Block(kind, size, jnp.float32)
  x = random(1, size.cells, size.cells, size.width)
  return module, randomised(jax.eval_shape(module.init, jax.random.key(1), x, None)["params"]), x


def test_released_size_has_the_published_number_of_parameters():
  pixels = jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.float32)
  expert = Sam(SIZES["released"])
  grid, variables = jax.eval_shape(expert.init_with_output, jax.random.key(0), pixels)
  assert grid.shape == (1, 32, 32, 1024)
  total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert round(total / 1e6, 3) == 307.688


def test_released_blocks_are_global_where_upstream_has_them():
  kinds = SIZES["released"].kinds
  assert [n for n, kind in enumerate(kinds) if kind == G] == [5, 11, 17, 23]


def test_each_kind_has_relative_positions_of_its_own_reach():
  pixels = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  expert = Sam(small(kinds=(W, W, G)))
  params = jax.eval_shape(expert.init, jax.random.key(0), pixels)["params"]
  windowed, whole = (params["groups"][run]["attention"] for run in ("run_0", "run_1"))
  assert (
    windowed["relative_row_positions"].shape
    == windowed["relative_column_positions"].shape
    == (1, 2, 3, 4)
  )
  assert (
    whole["relative_row_positions"].shape
    == whole["relative_column_positions"].shape
    == (1, 1, 7, 4)
  )
  assert set(windowed) == {"qkv", "relative_row_positions", "relative_column_positions", "out"}
  assert set(params["neck_conv"]) == {"kernel"}


def test_bfloat16_stays_close_to_float32():
  pixels = random(1, 8, 8, 3)
  expert = Sam(small())
  params = randomised(jax.eval_shape(expert.init, jax.random.key(0), pixels))
  exact = jax.jit(expert.apply)(params, pixels)
  low = jax.jit(expert.clone(dtype=jnp.bfloat16).apply)(params, pixels)
  assert exact.shape == low.shape == (1, 2, 2, 12)
  assert (exact.dtype, low.dtype) == (jnp.float32, jnp.bfloat16)
  error = jnp.linalg.norm(low.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
  assert 0 < error < 0.03


@pytest.mark.parametrize(("kind", "reach"), [(W, 4), (G, 16)])
def test_a_cell_reaches_its_window_or_the_whole_grid(kind, reach):
  module, params, x = block(kind, small())
  apply = jax.jit(lambda x: module.apply({"params": params}, x, None)[0])
  moved = jnp.any(apply(x) != apply(x.at[0, 0, 0].multiply(-1.0)), axis=-1)[0]
  assert moved.sum() == reach
  assert moved[:2, :2].all()


def norm(x, params):
  centred = x - x.mean(-1, keepdims=True)
  scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  return scaled * params["scale"] + params["bias"]


def test_relative_bias_scores_row_and_column_distance_of_every_pair():
  side, heads, head_dim = 3, 2, 4
  query = random(2, side**2, heads, head_dim)
  rows, columns = (random(2 * side - 1, head_dim, seed=n) for n in (1, 2))
  bias = np.asarray(relative_bias(query, by_distance(rows), by_distance(columns)))
  q, r, c = (np.asarray(a) for a in (query, rows, columns))
  for y, x, v, u in np.ndindex(side, side, side, side):
    vector = r[y - v + side - 1] + c[x - u + side - 1]
    expected = q[:, y * side + x] @ vector  # [2, heads]
    np.testing.assert_allclose(bias[:, :, y * side + x, v * side + u], expected, atol=1e-5)


def test_rows_attend_one_after_another_as_they_do_at_once():
  _, params, x = block(G, small())

  def loss(params, rows_at_once):
    """Sums what a block gives, each cell with a weight of its own."""
    attention = Block(G, small(rows_at_once=rows_at_once), jnp.float32)
    out, _ = attention.apply({"params": params}, x, None)
    return jnp.sum(out * random(*out.shape, seed=3)), out

  grad = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
  (expected, out), *others = (grad(params, n) for n in (4, 2, 1))
  for found, other in others:
    np.testing.assert_allclose(other, out, rtol=1e-5, atol=1e-5)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected
    )


def test_scores_of_a_few_rows_lie_in_memory_at_a_time():
  size = small(image_size=64, rows_at_once=2)  # 32 cells a side
  module = Block(G, size, jnp.float32)
  x = jax.ShapeDtypeStruct((1, size.cells, size.cells, size.width), jnp.float32)
  params = jax.eval_shape(module.init, jax.random.key(0), x, None)["params"]
  compiled = jax.jit(lambda params, x: module.apply({"params": params}, x, None)[0])
  held = compiled.lower(params, x).compile().memory_analysis().temp_size_in_bytes
  assert held < size.num_heads * size.cells**4 * 4 / 2  # of the scores of all rows


def test_padded_cells_take_part_with_their_biases_and_places():
  size = small(window=3)  # a grid of 4: windows at rows 0-2 and 3-5
  module, params, x = block(W, size)
  out, x = (np.asarray(a) for a in (jax.jit(module.apply)({"params": params}, x, None)[0], x))
  # The last window by hand: one real cell at its first place, eight of padding.
  params = jax.tree.map(np.asarray, params)
  normed = np.zeros((9, 8), np.float32)
  normed[0] = norm(x[0, 3, 3], params["attention_norm"])
  p = params["attention"]
  qkv = (normed @ p["qkv"]["kernel"] + p["qkv"]["bias"]).reshape(9, 3, 2, 4)
  query, keys, values = qkv[0, 0], qkv[:, 1], qkv[:, 2]
  scores = np.einsum("hd,shd->hs", query, keys) / 2
  for v, u in np.ndindex(3, 3):
    scores[:, 3 * v + u] += query @ (
      p["relative_row_positions"][2 - v] + p["relative_column_positions"][2 - u]
    )
  weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  mixed = np.einsum("hs,shd->hd", weights, values).reshape(-1)
  after = x[0, 3, 3] + mixed @ p["out"]["kernel"] + p["out"]["bias"]
  hidden = norm(after, params["mlp_norm"]) @ params["mlp"]["fc1"]["kernel"]
  hidden = np.asarray(sam.gelu(jnp.asarray(hidden + params["mlp"]["fc1"]["bias"])))
  mlp = hidden @ params["mlp"]["fc2"]["kernel"] + params["mlp"]["fc2"]["bias"]
  np.testing.assert_allclose(out[0, 3, 3], after + mlp, rtol=1e-4, atol=1e-5)


def test_neck_norms_channels_and_folds_squares_of_four_cells():
  expert = Sam(small())
  pixels = random(1, 8, 8, 3)
  params = randomised(jax.eval_shape(expert.init, jax.random.key(0), pixels)["params"])
  apply = jax.jit(functools.partial(expert.apply, mutable=["probes"]))
  out, sown = apply({"params": params}, pixels)
  (neck,) = sown["probes"]["neck"]
  assert neck.shape == (1, 4, 4, 3)
  out, neck = np.asarray(out), np.asarray(neck)
  affine = jax.tree.map(np.asarray, params["neck_norm"])
  plain = (neck - affine["bias"]) / affine["scale"]
  np.testing.assert_allclose(plain.mean(-1), 0, atol=1e-5)
  for c, dy, dx in np.ndindex(3, 2, 2):
    np.testing.assert_array_equal(out[..., 4 * c + 2 * dy + dx], neck[:, dy::2, dx::2, c])


def test_heads_divided_over_devices_are_not_gathered():
  mesh = jax.make_mesh((2,), ("tensor",), (AxisType.Auto,), devices=jax.devices()[:2])
  attention = sam.Attention(small(), jnp.float32)

  def placed(leaf, *spec):
    return jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
    )

  x = placed(jnp.zeros((64, 2, 2, 8)))
  params = jax.tree.map(placed, jax.eval_shape(attention.init, jax.random.key(0), x)["params"])
  params["qkv"]["kernel"] = placed(params["qkv"]["kernel"], None, "tensor")
  params["out"]["kernel"] = placed(params["out"]["kernel"], "tensor", None)
  compiled = jax.jit(lambda params, x: attention.apply({"params": params}, x)).lower(params, x)
  found = collectives.find(hlo.parse(compiled.compile().as_text()), {"tensor": 2})
  # What the row-wise layer gives is summed; of columns no more moves than the kernel has.
  assert [one.sent for one in found if one.kind == "all-reduce"] == [64 * 4 * 8 * 4]
  assert sum(one.sent for one in found if one.kind != "all-reduce") <= 8 * 24 * 4
