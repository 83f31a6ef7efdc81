import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.convert import engine
from eagle_jax.convert.rules import Carry
from eagle_jax.convert.source import ArraySource
from eagle_jax.vision.convnext import SIZES, ConvNext
from eagle_jax.vision.weights.convnext import table


def shapes(size, classes=1000):
  """Names and shapes of the original's tower. Source: timm, ConvNeXt, as EAGLE renames it."""
  dims, k = size.dims, size.kernel
  modules = {"stem.0": (dims[0], 3, 4, 4), "stem.1": (dims[0],)}
  modules |= {"head.norm": (dims[3],), "head.fc": (classes, dims[3])}
  scales = {}
  for s, d in enumerate(dims):
    if s:
      modules |= {
        f"stages.{s}.downsample.0": (dims[s - 1],),
        f"stages.{s}.downsample.1": (d, dims[s - 1], 2, 2),
      }
    for n in range(size.depths[s]):
      block = f"stages.{s}.blocks.{n}"
      modules |= {f"{block}.conv_dw": (d, 1, k, k), f"{block}.norm": (d,)}
      modules |= {f"{block}.mlp.fc1": (4 * d, d), f"{block}.mlp.fc2": (d, 4 * d)}
      scales[f"{block}.weight"] = (d,)
  found = dict(scales)
  for name, shape in modules.items():
    found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
  return found


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(ConvNext(size).init, jax.random.key(0), pixels)["params"]


def test_released_checkpoint_has_a_place_for_every_tensor():
  size = SIZES["released"]
  names = shapes(size)
  assert len(names) == 380
  expected = engine.expected_names(table(size), engine.flatten(abstract(size)))
  carried = {name for name in names if isinstance(table(size).match(name)[0], Carry)}
  assert carried == {
    f"head.{part}.{leaf}" for part in ("norm", "fc") for leaf in ("weight", "bias")
  }
  assert {name for name, _, _ in expected} == set(names) - carried


def test_there_and_back_again_changes_nothing():
  size = SIZES["tiny"]
  draw = np.random.default_rng(0).normal
  arrays = {
    name: draw(size=shape).astype(np.float32) for name, shape in shapes(size, classes=10).items()
  }
  origin = ArraySource(arrays)
  plan = engine.plan(origin, table(size), abstract(size))
  params, carried = engine.fill(plan, origin)
  blocks = params["stage_2"]["blocks"]
  kernel = arrays["stages.2.blocks.1.conv_dw.weight"]
  np.testing.assert_array_equal(blocks["depthwise"]["kernel"][1, :, :, 0, 5], kernel[5, 0])
  np.testing.assert_array_equal(blocks["layer_scale"][2], arrays["stages.2.blocks.2.weight"])
  np.testing.assert_array_equal(blocks["norm"]["scale"][2], arrays["stages.2.blocks.2.norm.weight"])
  back = dict(engine.export(plan, params, carried))
  assert set(back) == set(arrays)
  for name, array in back.items():
    np.testing.assert_array_equal(array, arrays[name])
