import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.convert import engine
from eagle_jax.convert.rules import Carry
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.vision.clip import SIZES, Clip
from eagle_jax.vision.weights.clip import SCHEMES, table


def shapes(size):
  """Names and shapes of the original's tower. Source: transformers, CLIPVisionModel."""
  d, m, p = size.width, size.mlp_width, size.patch
  embeddings = "vision_model.embeddings."
  found = {
    embeddings + "class_embedding": (d,),
    embeddings + "patch_embedding.weight": (d, 3, p, p),
    embeddings + "position_embedding.weight": (1 + size.table_side**2, d),
  }
  layers = {f"self_attn.{name}_proj": (d, d) for name in ("q", "k", "v", "out")}
  layers |= {"mlp.fc1": (m, d), "mlp.fc2": (d, m), "layer_norm1": (d,), "layer_norm2": (d,)}
  norms = ("vision_model.pre_layrnorm", "vision_model.post_layernorm")
  modules = dict.fromkeys(norms, (d,)) | {
    f"vision_model.encoder.layers.{n}.{name}": shape
    for n in range(size.depth)
    for name, shape in layers.items()
  }
  for name, shape in modules.items():
    found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
  return found


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(Clip(size).init, jax.random.key(0), pixels)["params"]


def source(size, **more):
  draw = np.random.default_rng(0).normal
  arrays = {name: draw(size=shape).astype(np.float32) for name, shape in shapes(size).items()}
  return ArraySource(arrays | more)


def test_released_checkpoint_has_a_place_for_every_tensor():
  size = SIZES["released"]
  names = shapes(size)
  assert len(names) == 391
  expected = engine.expected_names(table(size), engine.flatten(abstract(size)))
  carried = {name for name in names if isinstance(table(size).match(name)[0], Carry)}
  assert carried == {f"vision_model.post_layernorm.{leaf}" for leaf in ("weight", "bias")}
  assert {name for name, _, _ in expected} == set(names) - carried


def test_there_and_back_again_changes_nothing():
  size = SIZES["tiny"]
  origin = source(size)
  plan = engine.plan(origin, table(size), abstract(size))
  params, carried = engine.fill(plan, origin)
  key = origin.read("vision_model.encoder.layers.1.self_attn.k_proj.weight")
  np.testing.assert_array_equal(params["blocks"]["attention"]["key"]["kernel"][1], key.T)
  back = dict(engine.export(plan, params, carried))
  assert set(back) == set(origin.entries())
  for name, array in back.items():
    np.testing.assert_array_equal(array, origin.read(name))


def test_old_checkpoints_position_numbers_are_carried():
  size = SIZES["tiny"]
  name = "vision_model.embeddings.position_ids"
  plan = engine.plan(source(size, **{name: np.arange(10)[None]}), table(size), abstract(size))
  assert name in plan.carried
  assert not plan.dropped


def test_an_unknown_tensor_is_an_error():
  size = SIZES["tiny"]
  with pytest.raises(EagleError, match="post_layrnorm"):
    engine.plan(
      source(size, **{"vision_model.post_layrnorm.weight": np.zeros(32)}),
      table(size),
      abstract(size),
    )


TEXT = (
  "logit_scale",
  "text_projection.weight",
  "visual_projection.weight",
  "text_model.embeddings.position_ids",
  "text_model.encoder.layers.0.mlp.fc1.weight",
)


def test_the_text_half_is_dropped_from_files_of_clip_alone():
  size = SIZES["tiny"]
  both = source(size, **{name: np.zeros(3, np.float32) for name in TEXT})
  plan = engine.plan(both, SCHEMES[0].table(size), abstract(size))
  assert set(plan.dropped) == set(TEXT)
  assert len(plan.carried) == 2
  with pytest.raises(EagleError, match="5 breaches"):  # a merged checkpoint holds no text half
    engine.plan(both, table(size), abstract(size))
