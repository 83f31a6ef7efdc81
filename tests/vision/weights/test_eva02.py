import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.convert import engine
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.vision.eva02 import SIZES, Eva02
from eagle_jax.vision.weights.eva02 import SCHEMES, table


def shapes(size):
  """Source names and shapes of the tower, rotary buffers left out. Source: EAGLE's own keys."""
  d, m = size.width, size.mlp_width
  found = {
    "pos_embed": (1, 1 + size.pretrain_side**2, d),
    "patch_embed.proj.weight": (d, 3, size.patch, size.patch),
    "patch_embed.proj.bias": (d,),
  }
  vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
  vectors += ("attn.q_bias", "attn.v_bias", "attn.proj.bias", "mlp.w3.bias")
  inner = ("mlp.w1.bias", "mlp.w2.bias", "mlp.ffn_ln.weight", "mlp.ffn_ln.bias")
  square = (f"attn.{name}.weight" for name in ("q_proj", "k_proj", "v_proj", "proj"))
  block = dict.fromkeys(vectors, (d,)) | dict.fromkeys(inner, (m,))
  block |= dict.fromkeys(square, (d, d))
  block |= {"mlp.w1.weight": (m, d), "mlp.w2.weight": (m, d), "mlp.w3.weight": (d, m)}
  for n in range(len(size.kinds)):
    found |= {f"blocks.{n}.{name}": shape for name, shape in block.items()}
  return found


def ropes(depth):
  owners = ["rope_win", "rope_glb", *(f"blocks.{n}.attn.rope" for n in range(depth))]
  return [f"{owner}.freqs_{table}" for owner in owners for table in ("cos", "sin")]


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(Eva02(size).init, jax.random.key(0), pixels)["params"]


def zeros(size):
  return {name: np.zeros(shape, np.float32) for name, shape in shapes(size).items()}


def test_released_names_are_all_known():
  size = SIZES["released"]
  names = [*shapes(size), *ropes(24)]
  assert len(shapes(size)) == 459
  assert len(names) == 511
  assert all(table(size).match(name) for name in names)
  found = {
    name for name, _, _ in engine.expected_names(table(size), engine.flatten(abstract(size)))
  }
  assert found == set(shapes(size))


@pytest.mark.parametrize("aliases", [4, 2, 0])
def test_every_block_goes_to_its_slot_with_or_without_rotary_buffers(aliases):
  size = SIZES["tiny"]
  arrays = zeros(size)
  for n in range(4):
    arrays[f"blocks.{n}.mlp.w1.weight"] += n + 1
    arrays[f"blocks.{n}.attn.v_bias"] -= n + 1
  arrays |= {name: np.zeros((16, 16), np.float32) for name in ropes(4)[: aliases * 3]}
  source = ArraySource(arrays)
  params, carried = engine.fill(engine.plan(source, table(size), abstract(size)), source)
  assert carried.keys() == set(ropes(4)[: aliases * 3])
  for n, (part, run, index) in enumerate(
    [
      ("groups", "run_0", (0, 0)),
      ("groups", "run_0", (0, 1)),
      ("groups", "run_1", (0, 0)),
      ("rest", "run_0", (0,)),
    ]
  ):
    block = params[part][run]
    assert np.all(block["mlp"]["gate"]["kernel"][index] == n + 1)
    assert np.all(block["attention"]["value"]["bias"][index] == -n - 1)


def test_a_missing_block_is_an_error():
  size = SIZES["tiny"]
  arrays = {name: array for name, array in zeros(size).items() if not name.startswith("blocks.2")}
  with pytest.raises(EagleError, match=r"blocks\.2\.attn\.q_proj"):
    engine.plan(ArraySource(arrays), table(size), abstract(size))


HEADS = (
  "backbone.simfp_2.0.weight",
  "backbone.simfp_5.1.norm.bias",
  "proposal_generator.rpn_head.conv.conv0.weight",
  "proposal_generator.anchor_generator.cell_anchors.0",
  "roi_heads.box_head.2.fc1.weight",
  "pixel_mean",
  "pixel_std",
)


def detector(size, *more):
  arrays = {"backbone.net." + name: array for name, array in zeros(size).items()}
  return arrays | {name: np.zeros(3, np.float32) for name in more}


def test_the_rest_of_the_detector_is_dropped():
  size = SIZES["tiny"]
  _, detection = SCHEMES
  tables = [f"backbone.net.{name}" for name in ropes(4)]
  source = ArraySource(detector(size, *HEADS, *tables))
  plan = engine.plan(source, detection.table(size), abstract(size))
  assert set(plan.dropped) == set(HEADS)
  assert set(plan.carried) == set(tables)
  assert len(plan.moves) == len(shapes(size))


@pytest.mark.parametrize("name", ["backbone.fpn.weight", "backbone.net.norm.weight", "pos_embed"])
def test_what_is_no_part_of_the_detector_is_an_error(name):
  size = SIZES["tiny"]
  with pytest.raises(EagleError, match=f"'{name}' is known to no rule"):
    engine.plan(ArraySource(detector(size, name)), SCHEMES[1].table(size), abstract(size))
