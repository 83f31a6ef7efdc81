import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.nn.pixels import denormalise
from eagle_jax.vision.pix2struct import SIZES, Pix2Struct, cut_patches, patch_counts

SMALL = dataclasses.replace(SIZES["demo"], max_patches=20, width=8, num_heads=2, mlp_width=12)


def levels(height, width, batch=1):
  values = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3))
  return jnp.asarray(values, jnp.float32)


def drawn(module, x):
  """Parameters of a network, without compiling its initialisation."""
  leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), x)["params"])
  draw = np.random.default_rng(1).normal
  return tree.unflatten([jnp.asarray(0.3 * draw(size=a.shape), jnp.float32) for a in leaves])


@pytest.fixture(scope="module")
def params():
  return drawn(Pix2Struct(SMALL), levels(64, 64))


def test_released_size_has_the_papers_parameters():
  size = SIZES["released"]
  pixels = jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.float32)
  grid, variables = jax.eval_shape(Pix2Struct(size).init_with_output, jax.random.key(0), pixels)
  assert grid.shape == (1, 32, 32, 1536)
  total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert round(total / 1e6, 3) == 512.812


@pytest.mark.parametrize(
  ("height", "width", "counts"),
  [
    (1024, 1024, (45, 45)),
    (128, 128, (45, 45)),
    (640, 480, (52, 39)),
    (333, 1000, (26, 78)),
    (1024, 256, (90, 22)),
    (16, 100_000, (1, 2048)),
  ],
)
def test_as_many_patches_as_fit_keep_the_aspect(height, width, counts):
  assert patch_counts(height, width, SIZES["released"]) == counts


def test_patches_of_a_picture_that_fits_are_its_standardised_pixels():
  size = dataclasses.replace(SMALL, max_patches=8)
  picture = levels(32, 64, batch=2)
  rows = np.asarray(jax.jit(cut_patches, static_argnums=1)(picture, size))
  assert rows.shape == (2, 8, 2 + 16 * 16 * 3)
  wide = np.asarray(picture, np.float64)
  for b in range(2):
    standard = (wide[b] - wide[b].mean()) / wide[b].std()
    for n in range(8):
      row, column = divmod(n, 4)
      assert tuple(rows[b, n, :2]) == (row + 1, column + 1)
      patch = standard[16 * row :, 16 * column :][:16, :16]
      np.testing.assert_allclose(rows[b, n, 2:], patch.ravel(), rtol=0, atol=1e-5)


def test_rows_beyond_the_patches_are_zeros():
  rows = np.asarray(cut_patches(levels(64, 64), SMALL))
  assert np.all(rows[:, 16:] == 0)
  assert np.all(rows[:, :16].any(-1))


def test_a_picture_of_one_colour_stays_finite():
  rows = np.asarray(cut_patches(jnp.full((1, 64, 64, 3), 116.0), SMALL))
  assert np.all(rows[..., 2:] == 0)


def test_bfloat16_runs_rematerialised_and_stays_close(params):
  """The picture is processed in float32 either way."""
  x = levels(64, 64, batch=2) / 100 - 1
  run = lambda dtype, remat: jax.jit(
    lambda p, x: Pix2Struct(SMALL, dtype, remat).apply({"params": p}, x, mutable="probes")
  )(params, x)
  (exact, probes), (half, half_probes) = run(jnp.float32, "none"), run(jnp.bfloat16, "block")
  assert exact.shape == (2, 4, 4, 8)
  assert half.dtype == jnp.bfloat16
  error = np.linalg.norm(np.asarray(half, np.float32) - exact) / np.linalg.norm(exact)
  assert 1e-4 < error < 0.05
  patches = [p["probes"]["flattened_patches"][0] for p in (probes, half_probes)]
  np.testing.assert_allclose(*patches, rtol=0, atol=1e-5)
  assert probes["probes"]["blocks"]["block"][0].shape == (2, 2, 20, 8)
  np.testing.assert_allclose(patches[0], cut_patches(denormalise(x), SMALL), rtol=0, atol=1e-5)


def test_padding_is_seen_by_no_patch(params):
  """Of 16 patches in a sequence of 16 or of 20 the outputs are the same."""
  x = levels(64, 64) / 100 - 1
  outs = [
    jax.jit(Pix2Struct(dataclasses.replace(SMALL, max_patches=m)).apply)({"params": params}, x)
    for m in (16, 20)
  ]
  np.testing.assert_allclose(*outs, rtol=1e-5, atol=1e-5)


def test_pixels_get_no_gradient_and_unused_table_rows_neither(params):
  def total(params, x):
    return jnp.square(Pix2Struct(SMALL, remat="block").apply({"params": params}, x)).sum()

  grads, pixels = jax.jit(jax.grad(total, argnums=(0, 1)))(params, levels(64, 64) / 100 - 1)
  assert np.all(np.asarray(pixels) == 0)
  for name in ("row_embedding", "column_embedding"):
    used = np.any(np.asarray(grads[name]) != 0, axis=-1)
    assert used[1:5].all()
    assert not used[5:].any()
