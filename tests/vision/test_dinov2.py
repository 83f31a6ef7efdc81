import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.convert import engine
from eagle_jax.convert.source import ArraySource
from eagle_jax.vision.dinov2 import SIZES, Dinov2
from eagle_jax.vision.weights.dinov2 import table
from tests.vision.weights import test_dinov2 as weights

WITH = SIZES["tiny"]
WITHOUT = dataclasses.replace(WITH, registers=0, antialias=False)


def pictures(side, batch=2):
  values = np.random.default_rng(1).normal(size=(batch, side, side, 3))
  return jnp.asarray(values, jnp.float32)


def abstract(size, side=None):
  side = side or size.image_size
  pixels = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  return jax.eval_shape(Dinov2(size).init_with_output, jax.random.key(0), pixels)


def loaded(tensors, size):
  """Parameters of a file of transformers, through the real table."""
  source = ArraySource(tensors)
  params, _ = engine.fill(engine.plan(source, table(size), abstract(size)[1]["params"]), source)
  return jax.tree.map(jnp.asarray, params)


def keys_cubic(x, a):
  x = abs(x)
  if x < 1:
    return (a + 2) * x**3 - (a + 3) * x**2 + 1
  return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resized(grid, side, antialias):
  """Cubic interpolation [h, h, C] to [side, side, C], weight by weight, in float64."""
  length = len(grid)
  scale = length / side
  matrix = np.zeros((side, length))
  for i in range(side):
    centre = (i + 0.5) * scale
    if antialias:  # cells beyond the border are left out, the kernel widens as it shrinks
      wide = max(scale, 1.0)
      for cell in range(length):
        matrix[i, cell] = keys_cubic((cell + 0.5 - centre) / wide, -0.5)
      matrix[i] /= matrix[i].sum()
    else:  # the border is repeated
      first = math.floor(centre - 0.5) - 1
      for cell in range(first, first + 4):
        matrix[i, min(max(cell, 0), length - 1)] += keys_cubic(cell + 0.5 - centre, -0.75)
  return np.einsum("ih,hwc,jw->ijc", matrix, grid, matrix)


def normed(x, scale, bias):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + bias


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def forward(tensors, size, picture):
  """The published equations for one picture [H, H, 3], in float64, from a file's tensors.

  Source: DINOv2 (arXiv 2304.07193), appendix B; registers (arXiv 2309.16588), section 2.2.
  """
  w = {name: array.astype(np.float64) for name, array in tensors.items()}
  p, d = size.patch, size.width
  side = len(picture) // p
  kernel = w["embeddings.patch_embeddings.projection.weight"]  # [C, 3, p, p]
  tokens = np.zeros((side, side, d))
  for i, j in np.ndindex(side, side):
    patch = picture[i * p : (i + 1) * p, j * p : (j + 1) * p]
    tokens[i, j] = np.einsum("hwc,dchw->d", patch, kernel)
  positions = w["embeddings.position_embeddings"][0]
  grid = positions[1:].reshape(size.table_side, size.table_side, d)
  if side != size.table_side:
    grid = resized(grid, side, size.antialias)
  tokens = tokens + w["embeddings.patch_embeddings.projection.bias"] + grid
  x = [w["embeddings.cls_token"][0] + positions[:1]]
  if size.registers:
    x.append(w["embeddings.register_tokens"][0])
  x = np.concatenate([*x, tokens.reshape(-1, d)])
  erf = np.vectorize(math.erf)
  for n in range(size.depth):

    def dense(x, name, n=n):
      name = f"encoder.layer.{n}.{name}"
      return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name, n=n):
      name = f"encoder.layer.{n}.{name}"
      return normed(x, w[f"{name}.weight"], w[f"{name}.bias"])

    y = norm(x, "norm1")
    query, key, value = (
      dense(y, f"attention.attention.{name}").reshape(len(x), size.num_heads, -1)
      for name in ("query", "key", "value")
    )
    share = softmax(np.einsum("thd,shd->hts", query, key) / math.sqrt(d // size.num_heads))
    mixed = np.einsum("hts,shd->thd", share, value).reshape(len(x), d)
    x = x + dense(mixed, "attention.output.dense") * w[f"encoder.layer.{n}.layer_scale1.lambda1"]
    y = dense(norm(x, "norm2"), "mlp.fc1")
    y = dense(y * 0.5 * (1 + erf(y / math.sqrt(2))), "mlp.fc2")
    x = x + y * w[f"encoder.layer.{n}.layer_scale2.lambda1"]
  x = normed(x, w["layernorm.weight"], w["layernorm.bias"])
  return x[1 + size.registers :].reshape(side, side, d)


def error(found, expected):
  found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
  return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
  ("name", "side", "channels"),
  [
    ("released", 32, 1024),
    ("518", 37, 1024),
    ("l14", 32, 1024),
    ("b14", 16, 768),
    ("s14", 16, 384),
    ("demo", 8, 64),
    ("tiny", 4, 32),
  ],
)
def test_every_size_gives_the_grid_of_its_picture(name, side, channels):
  grid, _ = abstract(SIZES[name])
  assert grid.shape == (1, side, side, channels)
  assert SIZES[name].channels == channels


@pytest.mark.parametrize(
  ("name", "total"), [("released", 304_372_736), ("l14", 304_368_640), ("s14", 22_056_576)]
)
def test_parameters_are_those_of_the_published_files(name, total):
  """Source: transformers' models of that width and depth; the mask token is carried."""
  size = SIZES[name]
  params = abstract(size)[1]["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) + size.width == total
  assert params["positions"].shape == (1370, size.width)
  assert ("register_embedding" in params) == (name == "released")


@pytest.mark.parametrize("size", [WITH, WITHOUT], ids=["registers", "none"])
@pytest.mark.parametrize("side", [42, 56, 28], ids=["table", "larger", "smaller"])
def test_numbers_are_those_of_the_published_equations(size, side):
  tensors = weights.published(size)
  x = pictures(side)
  found = jax.jit(Dinov2(size).apply)({"params": loaded(tensors, size)}, x)
  expected = [forward(tensors, size, np.asarray(picture, np.float64)) for picture in x]
  assert found.shape == (2, side // 14, side // 14, 32)
  assert error(found, expected) < 1e-5


@pytest.mark.parametrize("side", [56, 28])
def test_blurring_the_position_table_makes_a_difference(side):
  """Or the field `antialias` could be the wrong way round unnoticed."""
  params = loaded(weights.published(WITH), WITH)
  sharp = dataclasses.replace(WITH, antialias=False)
  one, other = (
    jax.jit(Dinov2(size).apply)({"params": params}, pictures(side)) for size in (WITH, sharp)
  )
  assert error(one, other) > 1e-3


def test_bfloat16_runs_rematerialised_and_stays_close():
  params = loaded(weights.published(WITH), WITH)
  exact = jax.jit(Dinov2(WITH).apply)({"params": params}, pictures(56))
  half = jax.jit(Dinov2(WITH, jnp.bfloat16, "block").apply)({"params": params}, pictures(56))
  assert half.dtype == jnp.bfloat16
  assert 1e-4 < error(half.astype(jnp.float32), exact) < 0.05


def test_gradients_reach_every_parameter():
  params = loaded(weights.published(WITH), WITH)

  def total(params):
    return jnp.square(Dinov2(WITH, remat="block").apply({"params": params}, pictures(56, 1))).sum()

  grads = engine.flatten(jax.jit(jax.grad(total))(params))
  assert all(np.any(np.asarray(grad) != 0) for grad in grads.values())
  # A key's bias adds one number to all scores of a query, which the softmax takes out again.
  bias = np.abs(np.asarray(grads["blocks/attention/qkv/bias"])).max(-1)  # [L, 3]
  assert np.all(bias[:, 1] < 1e-4 * bias[:, 2])


def test_registers_have_no_position_and_stand_behind_the_class_token():
  params = loaded(weights.published(WITH), WITH)
  apply = jax.jit(lambda x: Dinov2(WITH).apply({"params": params}, x, mutable="probes"))
  found = apply(pictures(42))[1]["probes"]["embeddings"][0]
  assert found.shape == (2, 1 + 2 + 9, 32)
  np.testing.assert_array_equal(found[1, 1:3], params["register_embedding"])
  first = params["class_embedding"] + params["positions"][0]
  np.testing.assert_array_equal(found[1, 0], first)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [WITH, WITHOUT], ids=["registers", "none"])
@pytest.mark.parametrize("side", [42, 84, 28])
def test_numbers_are_those_of_transformers(size, side):
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  settings = {
    "hidden_size": size.width,
    "num_hidden_layers": size.depth,
    "num_attention_heads": size.num_heads,
    "mlp_ratio": size.mlp_width // size.width,
    "patch_size": size.patch,
    "image_size": size.patch * size.table_side,
    "layer_norm_eps": 1e-6,
  }
  if size.registers:
    settings["num_register_tokens"] = size.registers
    config = transformers.Dinov2WithRegistersConfig(**settings)
    model = transformers.Dinov2WithRegistersModel(config)
  else:
    model = transformers.Dinov2Model(transformers.Dinov2Config(**settings))
  tensors = weights.published(size)
  state = {name: torch.from_numpy(array) for name, array in tensors.items()}
  model.load_state_dict(state, strict=True)
  x = pictures(side)
  with torch.no_grad():
    out = model.eval()(torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy()))
  grid = out.last_hidden_state[:, 1 + size.registers :].numpy().reshape(2, side // 14, -1, 32)
  found = jax.jit(Dinov2(size).apply)({"params": loaded(tensors, size)}, x)
  measured = error(found, grid)
  print(f"registers {size.registers}, side {side}: {measured:.2e}")  # shown by pytest -s
  assert measured < 1e-5
