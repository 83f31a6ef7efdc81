import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.convert import engine, stream
from eagle_jax.convert.rules import Carry
from eagle_jax.convert.schemes import recognise
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.vision.dinov2 import SIZES, Dinov2
from eagle_jax.vision.weights.dinov2 import SCHEMES, table

WITH = SIZES["tiny"]
WITHOUT = dataclasses.replace(WITH, registers=0)
SCHEME = {scheme.name: scheme for scheme in SCHEMES}


def shapes(size):
  """Names and shapes of transformers. Source: Dinov2Model, Dinov2WithRegistersModel."""
  d, m, p = size.width, size.mlp_width, size.patch
  found = {
    "embeddings.cls_token": (1, 1, d),
    "embeddings.mask_token": (1, d),
    "embeddings.register_tokens": (1, size.registers, d),
    "embeddings.position_embeddings": (1, 1 + size.table_side**2, d),
    "embeddings.patch_embeddings.projection.weight": (d, 3, p, p),
    "embeddings.patch_embeddings.projection.bias": (d,),
    "layernorm.weight": (d,),
    "layernorm.bias": (d,),
  }
  if not size.registers:
    del found["embeddings.register_tokens"]
  modules = {f"attention.attention.{name}": (d, d) for name in ("query", "key", "value")}
  modules |= {"attention.output.dense": (d, d), "norm1": (d,), "norm2": (d,)}
  modules |= {"mlp.fc1": (m, d), "mlp.fc2": (d, m)}
  for n in range(size.depth):
    layer = f"encoder.layer.{n}."
    found |= {f"{layer}layer_scale{i}.lambda1": (d,) for i in (1, 2)}
    for name, shape in modules.items():
      found |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
  return found


def published(size):
  """Draws the tensors of a file of transformers."""
  rng = np.random.default_rng(0)
  return {
    name: rng.normal(size=shape).astype(np.float32) * 0.3 + ("norm" in name)
    for name, shape in shapes(size).items()
  }


def as_facebook(tensors):
  """Returns the authors' file of the same weights. Source: dinov2, DinoVisionTransformer."""
  found = {}
  for name, array in tensors.items():
    if ".attention.attention." in name:
      layer, projection = name.split(".attention.attention.")
      if not projection.startswith("query."):
        continue
      parts = [name.replace("query", other) for other in ("query", "key", "value")]
      leaf = projection.removeprefix("query.")
      fused = np.concatenate([tensors[part] for part in parts])
      found[f"blocks.{layer.removeprefix('encoder.layer.')}.attn.qkv.{leaf}"] = fused
      continue
    name = name.removeprefix("embeddings.").replace("encoder.layer.", "blocks.")
    name = name.replace("position_embeddings", "pos_embed")
    name = name.replace("patch_embeddings.projection", "patch_embed.proj")
    name = name.replace("attention.output.dense", "attn.proj").replace("layernorm.", "norm.")
    name = name.replace("layer_scale", "ls").replace("lambda1", "gamma")
    found[name] = array
  return found


def as_classifier(tensors, prefix):
  """Returns transformers' file of an image classifier with these weights."""
  head = {"classifier.weight": np.ones((5, 64)), "classifier.bias": np.ones(5)}
  return {prefix + name: array for name, array in tensors.items()} | head


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(Dinov2(size).init, jax.random.key(0), pixels)["params"]


def converted(tensors, size):
  """Returns scheme, plan, parameters by path and carried tensors of a file."""
  scheme = recognise(SCHEMES, tensors)
  plan = engine.plan(ArraySource(tensors), scheme.table(size), abstract(size))
  params, carried = engine.fill(plan, ArraySource(tensors))
  return scheme.name, plan, engine.flatten(params), carried


@pytest.mark.parametrize(("name", "count"), [("released", 440), ("l14", 439), ("s14", 223)])
def test_released_names_are_all_known(name, count):
  size = SIZES[name]
  names = shapes(size)
  assert len(names) == count
  expected = engine.expected_names(table(size), engine.flatten(abstract(size)))
  carried = {name for name in names if isinstance(table(size).match(name)[0], Carry)}
  assert carried == {"embeddings.mask_token"}
  assert {name for name, _, _ in expected} == set(names) - carried


@pytest.mark.parametrize("size", [WITH, WITHOUT])
def test_all_schemes_give_the_same_parameters_and_every_name_back(size):
  tensors = published(size)
  prefix = "dinov2_with_registers." if size.registers else "dinov2."
  name, _, expected, _ = converted(tensors, size)
  assert name == "eagle"
  for scheme, held in (
    ("eagle", tensors),
    ("facebook", as_facebook(tensors)),
    ("hf_classifier", as_classifier(tensors, prefix)),
  ):
    name, plan, params, carried = converted(held, size)
    assert name == scheme
    for path, array in params.items():
      np.testing.assert_array_equal(array, expected[path])
    back = dict(engine.export(plan, params, carried))
    assert set(back) | set(plan.dropped) == set(held)
    for tensor, array in back.items():
      np.testing.assert_array_equal(array, held[tensor])
    own = dict(engine.export(SCHEME[scheme].table(size), params))
    assert set(own) == set(back) - set(carried)


def test_queries_keys_and_values_are_slices_of_one_parameter():
  tensors = published(WITH)
  _, _, params, carried = converted(tensors, WITH)
  assert params["blocks/attention/qkv/kernel"].shape == (2, 3, 32, 32)
  for n in range(2):
    for at, name in enumerate(("query", "key", "value")):
      layer = f"encoder.layer.{n}.attention.attention.{name}"
      kernel, bias = (params[f"blocks/attention/qkv/{leaf}"][n, at] for leaf in ("kernel", "bias"))
      np.testing.assert_array_equal(kernel, tensors[f"{layer}.weight"].T)
      np.testing.assert_array_equal(bias, tensors[f"{layer}.bias"])
  assert list(carried) == ["embeddings.mask_token"]


def test_a_fused_kernel_is_one_slice_per_block_on_disk():
  tensors = as_facebook(published(WITH))
  _, plan, _, _ = converted(tensors, WITH)
  layout = stream.layouts_of(plan)["blocks/attention/qkv/kernel"]
  assert (layout.shape, layout.depth, layout.order) == ((2, 3, 32, 32), 1, "C")


FOREIGN = {
  "eagle": (published, "encoder.layer.0.mlp.weights_in.weight"),  # the giant's gated MLP
  "facebook": (lambda size: as_facebook(published(size)), "blocks.0.mlp.w12.weight"),
  "hf_classifier": (
    lambda size: as_classifier(published(size), "dinov2_with_registers."),
    "dinov2_with_registers.pooler.dense.weight",
  ),
}


@pytest.mark.parametrize("scheme", FOREIGN)
def test_a_foreign_name_is_an_error_that_names_it(scheme):
  made, foreign = FOREIGN[scheme]
  tensors = made(WITH) | {foreign: np.ones(3, np.float32)}
  with pytest.raises(EagleError, match=f"1 breaches:\n.*{foreign!r} is known to no rule"):
    converted(tensors, WITH)


def test_a_file_with_registers_is_none_without():
  with pytest.raises(EagleError, match="'register_embedding', which is no parameter"):
    converted(published(WITH), WITHOUT)
  with pytest.raises(EagleError, match=r"a rule expects 'embeddings\.register_tokens'"):
    converted(published(WITHOUT), WITH)


@pytest.mark.parametrize(
  ("name", "shape"), [("weight", (95, 32)), ("weight", (96,)), ("bias", (95,)), ("bias", (96, 1))]
)
def test_a_fused_tensor_that_is_no_three_is_an_error(name, shape):
  name = f"blocks.1.attn.qkv.{name}"
  tensors = as_facebook(published(WITH)) | {name: np.zeros(shape, np.float32)}
  with pytest.raises(EagleError, match=f"{name}': queries, keys and values are a multiple of 3"):
    converted(tensors, WITH)
