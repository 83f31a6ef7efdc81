import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.vision.convnext import SIZES, Block, ConvNext, ConvNextSize

SMALL = ConvNextSize(
  image_size=64, depths=(1, 1, 2, 1), dims=(4, 6, 8, 12), kernel=3, layer_scale=0.3
)


def pictures(side, batch=1):
  values = np.random.default_rng(0).normal(size=(batch, side, side, 3))
  return jnp.asarray(values, jnp.float32)


def drawn(module, x):
  """Parameters around those of a fresh network, without compiling its initialisation."""
  leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), x)["params"])
  draw = np.random.default_rng(1).normal
  return tree.unflatten([(0.3 * draw(size=leaf.shape)).astype(np.float32) for leaf in leaves])


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(ConvNext(size).init_with_output, jax.random.key(0), pixels)


def test_released_size_has_the_papers_parameters():
  grid, variables = abstract(SIZES["released"])
  assert grid.shape == (1, 32, 32, 3072)
  total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  carried = 2 * 3072 + 1000 * 3072 + 1000  # head.norm, head.fc
  assert round((total + carried) / 1e6, 3) == 846.471
  assert variables["params"]["stage_2"]["blocks"]["depthwise"]["kernel"].shape == (
    30,
    7,
    7,
    1,
    1536,
  )


def test_each_stage_is_a_stack_and_all_but_the_first_halve():
  params = abstract(SIZES["tiny"])[1]["params"]
  assert set(params) == {"patches", "patches_norm", *(f"stage_{n}" for n in range(4))}
  assert set(params["stage_0"]) == {"blocks"}
  assert set(params["stage_2"]) == {"downsample_norm", "downsample_conv", "blocks"}
  assert params["stage_2"]["downsample_conv"]["kernel"].shape == (2, 2, 16, 32)
  assert params["stage_2"]["blocks"]["layer_scale"].shape == (3, 32)


def test_bfloat16_runs_rematerialised_and_stays_close():
  x = pictures(64, batch=2)
  params = {"params": drawn(ConvNext(SMALL), x)}
  exact, probes = jax.jit(lambda p: ConvNext(SMALL).apply(p, x, mutable="probes"))(params)
  half = jax.jit(ConvNext(SMALL, jnp.bfloat16, "block").apply)(params, x)
  assert exact.shape == (2, 2, 2, 12)
  assert half.dtype == jnp.bfloat16
  error = np.linalg.norm(np.asarray(half, np.float32) - exact) / np.linalg.norm(exact)
  assert 1e-4 < error < 0.05
  probes = probes["probes"]
  assert [probes[f"stage{n}"][0].shape[1] for n in range(4)] == [16, 8, 4, 2]
  np.testing.assert_array_equal(probes["stage3"][0], exact)


def test_a_block_mixes_space_per_channel_and_scales_its_branch():
  """By hand: zero-padded depthwise sum, norm over channels, MLP, scale, residual."""
  size = SMALL
  x = pictures(64)[:, :5, :6].repeat(2, axis=-1)  # [1, 5, 6, 6]
  params = drawn(Block(size), x)
  out, _ = jax.jit(Block(size).apply)({"params": params}, x)

  wide = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  kernel = params["depthwise"]["kernel"]
  branch = params["depthwise"]["bias"].reshape(1, 1, 1, 6) + sum(
    wide[:, dy : dy + 5, dx : dx + 6] * kernel[dy, dx].reshape(1, 1, 1, 6)
    for dy in range(3)
    for dx in range(3)
  )
  branch = branch - branch.mean(-1, keepdims=True)
  branch = branch / np.sqrt((branch**2).mean(-1, keepdims=True) + 1e-5)
  flat = branch.reshape(30, 6) * params["norm"]["scale"] + params["norm"]["bias"]
  hidden = flat @ params["mlp"]["fc1"]["kernel"] + params["mlp"]["fc1"]["bias"]
  hidden = np.asarray(jax.nn.gelu(jnp.asarray(hidden, jnp.float32), approximate=False))
  flat = hidden @ params["mlp"]["fc2"]["kernel"] + params["mlp"]["fc2"]["bias"]
  expected = np.asarray(x) + (flat * params["layer_scale"]).reshape(1, 5, 6, 6)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_picture_that_patches_do_not_fill_is_refused():
  with pytest.raises(EagleError, match="patch 4 and picture 66x66"):
    jax.eval_shape(ConvNext(SMALL).init, jax.random.key(0), pictures(66))
