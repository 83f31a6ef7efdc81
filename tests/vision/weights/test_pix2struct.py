import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.convert import engine
from eagle_jax.convert.schemes import recognise
from eagle_jax.convert.source import ArraySource
from eagle_jax.vision.pix2struct import SIZES, Pix2Struct
from eagle_jax.vision.weights.pix2struct import SCHEMES, table


def shapes(size):
  """Names and shapes of the original's tower. Source: transformers, Pix2StructVisionModel."""
  d, m, heads = size.width, size.mlp_width, size.num_heads * size.head_dim
  found = {
    "embeddings.patch_projection.weight": (d, 3 * size.patch**2),
    "embeddings.patch_projection.bias": (d,),
    "embeddings.row_embedder.weight": (size.table_length, d),
    "embeddings.column_embedder.weight": (size.table_length, d),
    "layernorm.weight": (d,),
  }
  layer = {f"attention.{name}": (heads, d) for name in ("query", "key", "value")}
  layer |= {"attention.output": (d, heads), "pre_attention_layer_norm": (d,)}
  layer |= {"mlp.wi_0": (m, d), "mlp.wi_1": (m, d), "mlp.wo": (d, m), "pre_mlp_layer_norm": (d,)}
  for n in range(size.depth):
    found |= {f"encoder.layer.{n}.{name}.weight": shape for name, shape in layer.items()}
  return found


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(Pix2Struct(size).init, jax.random.key(0), pixels)["params"]


def test_released_checkpoint_has_a_place_for_every_tensor():
  size = SIZES["released"]
  assert len(shapes(size)) == 167
  expected = engine.expected_names(table(size), engine.flatten(abstract(size)))
  assert {name for name, _, _ in expected} == set(shapes(size))


def test_there_and_back_again_changes_nothing():
  size = SIZES["tiny"]
  draw = np.random.default_rng(0).normal
  arrays = {name: draw(size=shape).astype(np.float32) for name, shape in shapes(size).items()}
  origin = ArraySource(arrays)
  plan = engine.plan(origin, table(size), abstract(size))
  params, carried = engine.fill(plan, origin)
  assert not carried
  gate = arrays["encoder.layer.2.mlp.wi_0.weight"]
  np.testing.assert_array_equal(params["blocks"]["mlp"]["gate"]["kernel"][2], gate.T)
  back = dict(engine.export(plan, params))
  assert set(back) == set(arrays)
  for name, array in back.items():
    np.testing.assert_array_equal(array, arrays[name])


def test_the_encoder_may_come_alone_or_with_the_decoder():
  size = SIZES["tiny"]
  own, whole = SCHEMES
  alone = {name: np.zeros(shape, np.float32) for name, shape in shapes(size).items()}
  decoder = ("decoder.embed_tokens.weight", "decoder.layer.0.mlp.layer_norm.weight")
  both = {f"encoder.{name}": array for name, array in alone.items()}
  both |= dict.fromkeys(decoder, np.zeros(3, np.float32))
  for arrays, scheme, dropped in ((alone, own, ()), (both, whole, decoder)):
    assert recognise(SCHEMES, arrays) is scheme
    plan = engine.plan(ArraySource(arrays), scheme.table(size), abstract(size))
    assert set(plan.dropped) == set(dropped)
    assert len(plan.moves) == len(alone)
