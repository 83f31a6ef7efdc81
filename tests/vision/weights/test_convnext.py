import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.convert import engine
from eagle_jax.convert.rules import Carry
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.vision.convnext import SIZES, ConvNext
from eagle_jax.vision.weights.convnext import SCHEMES, table


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


TEXT = (
  "logit_scale",
  "positional_embedding",
  "text_projection",
  "token_embedding.weight",
  "transformer.resblocks.23.attn.in_proj_weight",
  "ln_final.bias",
)


def open_clip(size, *more):
  """Zeros under open_clip's names, the trunk without timm's classifier."""
  arrays = {name: np.zeros(3, np.float32) for name in more}
  for name, shape in shapes(size).items():
    # The layer scale hangs on the block itself.
    name = re.sub(r"(blocks\.\d+)\.weight", r"\1.gamma", name)
    if not name.startswith("head.fc."):
      arrays["visual.trunk." + name] = np.zeros(shape, np.float32)
  return ArraySource(arrays)


@pytest.mark.parametrize(
  "head",
  [("visual.head.proj.weight",), ("visual.head.mlp.fc1.weight", "visual.head.mlp.fc2.weight")],
)
def test_either_head_and_the_text_half_of_open_clip_are_dropped(head):
  size = SIZES["tiny"]
  scheme = next(scheme for scheme in SCHEMES if scheme.name == "open_clip")
  plan = engine.plan(open_clip(size, *head, *TEXT), scheme.table(size), abstract(size))
  assert set(plan.dropped) == {*head, *TEXT}
  assert set(plan.carried) == {f"visual.trunk.head.norm.{leaf}" for leaf in ("weight", "bias")}


@pytest.mark.parametrize("name", ["visual.head.weight", "transformer.width", "stem.0.weight"])
def test_open_clip_has_no_other_tensor(name):
  size = SIZES["tiny"]
  scheme = next(scheme for scheme in SCHEMES if scheme.name == "open_clip")
  with pytest.raises(EagleError, match=f"source tensor '{name}' is known to no rule"):
    engine.plan(open_clip(size, name), scheme.table(size), abstract(size))
