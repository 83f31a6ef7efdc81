import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.convert import engine
from eagle_jax.convert.schemes import without_fresh
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.vision.sam import SIZES, Sam
from eagle_jax.vision.weights.sam import SCHEMES, table


def shapes(size):
  """Source names and shapes of the tower. Source: EAGLE's own keys."""
  d, m = size.width, size.mlp_width
  found = {
    "pos_embed": (1, size.cells, size.cells, d),
    "patch_embed.projection.weight": (d, 3, size.patch, size.patch),
    "patch_embed.projection.bias": (d,),
    "neck.conv1.weight": (size.neck_width, d, 1, 1),
    "neck.layer_norm1.weight": (size.neck_width,),
    "neck.layer_norm1.bias": (size.neck_width,),
  }
  norms = [f"layer_norm{i}.{name}" for i in (1, 2) for name in ("weight", "bias")]
  block = dict.fromkeys([*norms, "attn.proj.bias", "mlp.lin2.bias"], (d,))
  block |= {"attn.qkv.weight": (3 * d, d), "attn.qkv.bias": (3 * d,), "attn.proj.weight": (d, d)}
  block |= {"mlp.lin1.weight": (m, d), "mlp.lin1.bias": (m,), "mlp.lin2.weight": (d, m)}
  for n, kind in enumerate(size.kinds):
    side = size.window if kind == "window" else size.cells
    reach = (2 * side - 1, size.head_dim)
    block |= {"attn.rel_pos_h": reach, "attn.rel_pos_w": reach}
    found |= {f"layers.{n}.{name}": shape for name, shape in block.items()}
  return found


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(Sam(size).init, jax.random.key(0), pixels)["params"]


def zeros(size):
  return {name: np.zeros(shape, np.float32) for name, shape in shapes(size).items()}


def test_released_names_are_all_known():
  size = SIZES["released"]
  assert len(shapes(size)) == 342
  found = {
    name for name, _, _ in engine.expected_names(table(size), engine.flatten(abstract(size)))
  }
  assert found == set(shapes(size))


def test_every_layer_goes_to_its_slot():
  size = SIZES["tiny"]
  arrays = zeros(size)
  for n in range(4):
    arrays[f"layers.{n}.attn.qkv.weight"] += n + 1
    arrays[f"layers.{n}.attn.rel_pos_h"] += n + 1
    arrays[f"layers.{n}.attn.rel_pos_w"] -= n + 1
  source = ArraySource(arrays)
  params, carried = engine.fill(engine.plan(source, table(size), abstract(size)), source)
  assert not carried
  for n in range(4):
    attention = params["groups"][f"run_{n % 2}"]["attention"]
    assert np.all(attention["qkv"]["kernel"][n // 2, 0] == n + 1)
    assert np.all(attention["relative_row_positions"][n // 2, 0] == n + 1)
    assert np.all(attention["relative_column_positions"][n // 2, 0] == -n - 1)


@pytest.mark.parametrize("name", ["neck.conv2.weight", "neck.layer_norm2.bias", "layers.0.attn.x"])
def test_what_upstream_took_out_is_no_silent_passenger(name):
  size = SIZES["tiny"]
  arrays = zeros(size) | {name: np.zeros(3, np.float32)}
  with pytest.raises(EagleError, match=name):
    engine.plan(ArraySource(arrays), table(size), abstract(size))


OTHERS = ("mask_decoder.iou_token.weight", "prompt_encoder.no_mask_embed.weight")
NECKS = {
  "hf": (
    "vision_encoder.",
    ("conv1.weight", "conv2.weight", "layer_norm2.weight"),
  ),
  "meta": ("image_encoder.", ("0.weight", "1.weight", "1.bias", "2.weight", "3.weight", "3.bias")),
}


@pytest.mark.parametrize("name", NECKS)
def test_the_published_neck_is_dropped_and_eagles_own_left_to_training(name):
  size = SIZES["tiny"]
  scheme = next(scheme for scheme in SCHEMES if scheme.name == name)
  wanted, drawn = without_fresh(abstract(size), scheme)
  assert set(drawn) == {"neck_conv/kernel", "neck_norm/scale", "neck_norm/bias"}
  leaves = engine.flatten(wanted)
  arrays = {
    source: np.zeros(transform.inverse(np.zeros(leaves[at.path].shape)[at.index]).shape, np.float32)
    for source, at, transform in engine.expected_names(scheme.table(size), leaves)
  }
  prefix, tensors = NECKS[name]
  neck = [f"{prefix}neck.{tensor}" for tensor in tensors]
  arrays |= dict.fromkeys((*neck, *OTHERS), np.ones(3, np.float32))
  plan = engine.plan(ArraySource(arrays), scheme.table(size), wanted)
  assert set(plan.dropped) == {*neck, *OTHERS}
  foreign = arrays | {f"{prefix}neck.norm.weight": np.ones(3, np.float32)}
  with pytest.raises(EagleError, match=r"neck\.norm\.weight' is known to no rule"):
    engine.plan(ArraySource(foreign), scheme.table(size), wanted)
