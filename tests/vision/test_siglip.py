import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.convert import engine
from eagle_jax.convert.source import ArraySource
from eagle_jax.vision.siglip import SIZES, SigLip
from eagle_jax.vision.weights.siglip import SCHEMES, table
from tests.vision.weights import test_siglip as weights

TINY = SIZES["tiny"]
PLAIN = dataclasses.replace(TINY, class_token="plain")
PLACED = dataclasses.replace(TINY, class_token="placed")
BIG_VISION = next(scheme for scheme in SCHEMES if scheme.name == "big_vision")


def pictures(side, batch=2):
  values = np.random.default_rng(1).normal(size=(batch, side, side, 3))
  return jnp.asarray(values, jnp.float32)


def abstract(size, side=None):
  side = side or size.image_size
  pixels = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  return jax.eval_shape(SigLip(size).init_with_output, jax.random.key(0), pixels)


def loaded(tensors, size, made=table):
  """Parameters of a file, through a real table."""
  source = ArraySource(tensors)
  params, _ = engine.fill(engine.plan(source, made(size), abstract(size)[1]["params"]), source)
  return jax.tree.map(jnp.asarray, params)


def keys_cubic(x):
  x, a = abs(x), -0.75
  if x < 1:
    return (a + 2) * x**3 - (a + 3) * x**2 + 1
  return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resized(grid, side):
  """Cubic interpolation [h, h, C] to [side, side, C], cell by cell, the border repeated."""
  length = len(grid)
  matrix = np.zeros((side, length))
  for i in range(side):
    centre = (i + 0.5) * length / side
    first = int(np.floor(centre - 0.5)) - 1
    for cell in range(first, first + 4):
      matrix[i, min(max(cell, 0), length - 1)] += keys_cubic(cell + 0.5 - centre)
  return np.einsum("ih,hwc,jw->ijc", matrix, grid, matrix)


def normed(x, w):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * w["scale"] + w["bias"]


def gelu_tanh(x):
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def nested(arrays):
  return engine.unflatten({name: array.astype(np.float64) for name, array in arrays.items()})


def forward(arrays, size, picture):
  """The published equations for one picture [H, H, 3], in float64, from big_vision's arrays.

  Kernels have axes of their own for heads and for channels per head, as in the file.

  Source: ViT (arXiv 2010.11929), equations 1 to 4; big_vision, models/vit.py, for the names.
  """
  w = nested(arrays)
  p, d = size.patch, size.width
  side = len(picture) // p
  grid = np.zeros((side, side, d))
  for i, j in np.ndindex(side, side):
    patch = picture[i * p : (i + 1) * p, j * p : (j + 1) * p]
    grid[i, j] = np.einsum("hwc,hwcd->d", patch, w["embedding"]["kernel"]) + w["embedding"]["bias"]
  table, token = w["pos_embedding"][0], w.get("cls", np.zeros((0, 1, d)))[:, 0]
  if size.class_token == "placed":  # the class token had its own row, before 2022
    token, table = token + table[:1], table[1:]
  positions = table.reshape(size.table_side, size.table_side, d)
  grid = grid + (positions if side == size.table_side else resized(positions, side))
  x = np.concatenate([token, grid.reshape(-1, d)])
  for n in range(size.depth):
    block = w["Transformer"][f"encoderblock_{n}"]
    heads, mlp = block["MultiHeadDotProductAttention_0"], block["MlpBlock_0"]
    y = normed(x, block["LayerNorm_0"])
    query, key, value = (
      np.einsum("td,dhk->htk", y, heads[name]["kernel"]) + heads[name]["bias"][:, None]
      for name in ("query", "key", "value")
    )
    score = np.exp(np.einsum("htk,hsk->hts", query, key) / np.sqrt(d / size.num_heads))
    mixed = np.einsum("hts,hsk->htk", score / score.sum(-1, keepdims=True), value)
    x = x + np.einsum("htk,hkd->td", mixed, heads["out"]["kernel"]) + heads["out"]["bias"]
    y = normed(x, block["LayerNorm_1"]) @ mlp["Dense_0"]["kernel"] + mlp["Dense_0"]["bias"]
    x = x + gelu_tanh(y) @ mlp["Dense_1"]["kernel"] + mlp["Dense_1"]["bias"]
  return normed(x, w["Transformer"]["encoder_norm"])[len(token) :].reshape(side, side, d)


def error(found, expected):
  found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
  return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
  ("name", "side", "channels"),
  [
    ("released", 27, 1152),
    ("448", 32, 1152),
    ("so14", 16, 1152),
    ("so16", 32, 1152),
    ("l16", 24, 1024),
    ("b16", 14, 768),
    ("s16", 14, 384),
    ("vit_l16", 14, 1024),
    ("vit_b16", 14, 768),
    ("demo", 8, 64),
    ("tiny", 3, 32),
  ],
)
def test_every_size_gives_the_grid_of_its_picture(name, side, channels):
  grid, _ = abstract(SIZES[name])
  assert grid.shape == (1, side, side, channels)
  assert SIZES[name].channels == channels


@pytest.mark.parametrize(
  ("name", "total"), [("released", 412_987_248), ("b16", 85_797_120), ("vit_b16", 85_798_656)]
)
def test_parameters_are_those_of_the_published_files(name, total):
  """Source: transformers' and timm's models of that width and depth, without their heads."""
  params = abstract(SIZES[name])[1]["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == total
  assert ("class_embedding" in params) == (name == "vit_b16")


@pytest.mark.parametrize(
  ("size", "side"), [(TINY, 44), (TINY, 70), (TINY, 28), (PLAIN, 44), (PLACED, 44), (PLACED, 70)]
)
def test_numbers_are_those_of_the_published_equations(size, side):
  arrays = weights.as_big_vision(weights.published(size), size)
  params = loaded(arrays, size, BIG_VISION.table)
  x = pictures(side)
  found = jax.jit(SigLip(size).apply)({"params": params}, x)
  expected = [forward(arrays, size, np.asarray(picture, np.float64)) for picture in x]
  assert found.shape == (2, side // 14, side // 14, 32)
  measured = error(found, expected)
  print(f"class token {size.class_token}, side {side}: {measured:.2e}")  # shown by pytest -s
  assert measured < 1e-5


def test_pixels_that_fill_no_patch_are_left_out():
  params = loaded(weights.published(TINY), TINY)
  apply = jax.jit(SigLip(TINY).apply)
  x = pictures(44)
  other = x.at[:, 42:].set(9).at[:, :, 42:].set(9)
  np.testing.assert_array_equal(apply({"params": params}, x), apply({"params": params}, other))


def embeddings(tensors, size):
  """What the blocks are given of the second picture, [N, C]."""
  params = loaded(tensors, size)
  apply = jax.jit(lambda x: SigLip(size).apply({"params": params}, x, mutable="probes"))
  return apply(pictures(44))[1]["probes"]["embeddings"][0][1]


def test_a_class_token_has_a_position_of_its_own_only_where_it_is_placed():
  tensors = weights.published(PLACED)
  token, table = tensors[weights.CLASS], tensors[weights.POSITIONS]
  placed = embeddings(tensors, PLACED)
  plain = embeddings(tensors | {weights.POSITIONS: table[1:]}, PLAIN)
  np.testing.assert_array_equal(placed[0], token + table[0])
  np.testing.assert_array_equal(plain[0], token)
  np.testing.assert_array_equal(plain[1:], placed[1:])


def test_bfloat16_runs_rematerialised_and_stays_close():
  params = loaded(weights.published(TINY), TINY)
  exact = jax.jit(SigLip(TINY).apply)({"params": params}, pictures(70))
  half = jax.jit(SigLip(TINY, jnp.bfloat16, "block").apply)({"params": params}, pictures(70))
  assert half.dtype == jnp.bfloat16
  assert 1e-4 < error(half.astype(jnp.float32), exact) < 0.05


def test_gradients_reach_every_parameter():
  params = loaded(weights.published(PLACED), PLACED)

  def total(params):
    found = SigLip(PLACED, remat="block").apply({"params": params}, pictures(44, 1))
    return jnp.square(found).sum()

  grads = engine.flatten(jax.jit(jax.grad(total))(params))
  # A key's bias adds one number to all scores of a query, which the softmax takes out again.
  keys = np.abs(np.asarray(grads.pop("blocks/attention/key/bias"))).max()
  assert keys < 1e-4 * np.abs(np.asarray(grads["blocks/attention/value/bias"])).max()
  assert all(np.any(np.asarray(grad) != 0) for grad in grads.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [44, 70, 28])
def test_numbers_are_those_of_transformers(side):
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  config = transformers.SiglipVisionConfig(
    hidden_size=TINY.width,
    num_hidden_layers=TINY.depth,
    num_attention_heads=TINY.num_heads,
    intermediate_size=TINY.mlp_width,
    patch_size=TINY.patch,
    image_size=TINY.image_size,
  )
  model = transformers.SiglipVisionModel(config)
  tensors = weights.drawn(weights.shapes(TINY) | weights.head(TINY))
  state = {name: torch.from_numpy(array) for name, array in tensors.items()}
  model.load_state_dict(state, strict=True)
  x = pictures(side)
  given = torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    out = model.eval()(given, interpolate_pos_encoding=side != TINY.image_size)
  grid = out.last_hidden_state.numpy().reshape(2, side // 14, -1, 32)
  found = jax.jit(SigLip(TINY).apply)({"params": loaded(tensors, TINY)}, x)
  measured = error(found, grid)
  print(f"side {side}: {measured:.2e}")  # shown by pytest -s
  assert measured < 1e-5
