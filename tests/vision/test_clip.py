import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.vision.clip import SIZES, Clip

SMALL = dataclasses.replace(SIZES["tiny"], depth=2)


def pictures(side, batch=2):
  values = np.random.default_rng(0).normal(size=(batch, side, side, 3))
  return jnp.asarray(values, jnp.float32)


def drawn(module, x):
  """Parameters of a network, without compiling its initialisation."""
  leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), x)["params"])
  draw = np.random.default_rng(1).normal
  return tree.unflatten([jnp.asarray(0.3 * draw(size=a.shape), jnp.float32) for a in leaves])


@pytest.fixture(scope="module")
def params():
  return drawn(Clip(SMALL), pictures(42))


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(Clip(size).init_with_output, jax.random.key(0), pixels)


@pytest.mark.parametrize(("name", "side"), [("released", 24), ("448", 32), ("672", 48)])
def test_released_rows_differ_in_their_grid_alone(name, side):
  grid, variables = abstract(SIZES[name])
  assert grid.shape == (1, side, side, 1024)
  total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  carried = 2 * 1024  # post_layernorm
  assert round((total + carried) / 1e6, 3) == 303.507
  assert variables["params"]["positions"].shape == (577, 1024)


def test_blocks_are_stacked():
  params = abstract(SIZES["demo"])[1]["params"]
  assert params["blocks"]["mlp"]["fc1"]["kernel"].shape == (2, 64, 128)
  assert params["blocks"]["attention"]["query"]["bias"].shape == (2, 64)


def test_bfloat16_runs_rematerialised_and_stays_close(params):
  """Weights stay float32, computation does not."""
  x = pictures(42)
  exact = jax.jit(Clip(SMALL).apply)({"params": params}, x)
  half = jax.jit(Clip(SMALL, jnp.bfloat16, "block").apply)({"params": params}, x)
  assert exact.shape == (2, 3, 3, 32)
  assert half.dtype == jnp.bfloat16
  error = np.linalg.norm(np.asarray(half, np.float32) - exact) / np.linalg.norm(exact)
  assert 1e-4 < error < 0.05


def test_class_token_and_its_position_take_part_in_nothing(params):
  x = pictures(42, batch=1)

  def total(params):
    return jnp.square(Clip(SMALL, remat="block").apply({"params": params}, x)).sum()

  grads = jax.jit(jax.grad(total))(params)
  assert np.all(np.asarray(grads["class_embedding"]) == 0)
  assert np.all(np.asarray(grads["positions"])[0] == 0)
  used = [grads["positions"][1:], *jax.tree.leaves(grads["blocks"]["mlp"])]
  assert all(np.any(np.asarray(leaf) != 0) for leaf in used)


def test_position_table_is_resized_for_other_grids_only(params):
  """A linear table stays linear in its inner cells, so the two sides can be compared."""
  rows, columns = np.indices((3, 3), dtype=np.float32)
  positions = np.zeros((10, 32), np.float32)
  positions[1:, 0], positions[1:, 1] = rows.ravel(), columns.ravel()
  quiet = params | {
    "positions": jnp.asarray(positions),
    "patches": {"kernel": jnp.zeros_like(params["patches"]["kernel"])},
  }

  def embedded(side):
    apply = jax.jit(lambda p, x: Clip(SMALL).apply({"params": p}, x, mutable="probes"))
    found = apply(quiet, jnp.zeros((1, side, side, 3)))[1]["probes"]["embeddings_with_cls"][0]
    return np.asarray(found)[0, 1:].reshape(side // 14, side // 14, 32)

  np.testing.assert_array_equal(embedded(42), positions[1:].reshape(3, 3, 32))
  wide = embedded(126)
  assert wide.shape == (9, 9, 32)
  np.testing.assert_allclose(wide[4, 4, :2], [1, 1], atol=1e-6)
  np.testing.assert_allclose(wide[4, :, 0], np.ones(9), atol=1e-5)
  assert np.all(np.diff(wide[:, 4, 0])[1:-1] > 0.2)
