import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from eagle_jax.convert import engine, stream
from eagle_jax.convert.npz_file import NpzSource
from eagle_jax.convert.rules import Carry
from eagle_jax.convert.schemes import recognise
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.vision.siglip import SIZES, SigLip
from eagle_jax.vision.weights.siglip import SCHEMES, table
from tests.convert import keys

TINY = SIZES["tiny"]
PLAIN = dataclasses.replace(TINY, class_token="plain")
PLACED = dataclasses.replace(TINY, class_token="placed")
SCHEME = {scheme.name: scheme for scheme in SCHEMES}

CLASS = "vision_model.embeddings.class_embedding"
POSITIONS = "vision_model.embeddings.position_embedding.weight"
MODULES = {
  "self_attn.q_proj": "MultiHeadDotProductAttention_0/query",
  "self_attn.k_proj": "MultiHeadDotProductAttention_0/key",
  "self_attn.v_proj": "MultiHeadDotProductAttention_0/value",
  "self_attn.out_proj": "MultiHeadDotProductAttention_0/out",
  "mlp.fc1": "MlpBlock_0/Dense_0",
  "mlp.fc2": "MlpBlock_0/Dense_1",
}
NORMS = {"layer_norm1": "LayerNorm_0", "layer_norm2": "LayerNorm_1"}


def shapes(size):
  """Names and shapes of transformers without the head. Source: SiglipVisionModel."""
  d, m, p = size.width, size.mlp_width, size.patch
  found = {
    CLASS: (d,),
    "vision_model.embeddings.patch_embedding.weight": (d, 3, p, p),
    "vision_model.embeddings.patch_embedding.bias": (d,),
    POSITIONS: (size.table_side**2 + (size.class_token == "placed"), d),
    "vision_model.post_layernorm.weight": (d,),
    "vision_model.post_layernorm.bias": (d,),
  }
  if size.class_token == "none":
    del found[CLASS]
  modules = dict.fromkeys(MODULES, (d, d)) | dict.fromkeys(NORMS, (d,))
  modules |= {"mlp.fc1": (m, d), "mlp.fc2": (d, m)}
  for n in range(size.depth):
    for name, shape in modules.items():
      layer = f"vision_model.encoder.layers.{n}.{name}"
      found |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
  return found


def head(size):
  """Names and shapes of the pooling head in transformers."""
  d, m = size.width, size.mlp_width
  found = {"probe": (1, 1, d), "attention.in_proj_weight": (3 * d, d)}
  found |= {"attention.in_proj_bias": (3 * d,), "attention.out_proj.weight": (d, d)}
  found |= {"attention.out_proj.bias": (d,), "layernorm.weight": (d,), "layernorm.bias": (d,)}
  found |= {"mlp.fc1.weight": (m, d), "mlp.fc1.bias": (m,)}
  found |= {"mlp.fc2.weight": (d, m), "mlp.fc2.bias": (d,)}
  return {f"vision_model.head.{name}": shape for name, shape in found.items()}


def drawn(names):
  rng = np.random.default_rng(0)
  return {
    name: rng.normal(size=shape).astype(np.float32) * 0.3
    + (name.endswith("weight") and "norm" in name)
    for name, shape in names.items()
  }


def published(size):
  """Draws the tensors of a file of transformers, without the head."""
  return drawn(shapes(size))


def one_block(layer, heads):
  """Returns a block's tensors as big_vision has them, of those of transformers."""
  found = {}
  for theirs, ours in MODULES.items():
    kernel, bias = layer[f"{theirs}.weight"].T, layer[f"{theirs}.bias"]
    if ours.endswith("out"):
      kernel = kernel.reshape(heads, -1, len(bias))
    elif "Attention" in ours:
      kernel, bias = kernel.reshape(len(kernel), heads, -1), bias.reshape(heads, -1)
    found |= {f"{ours}/kernel": kernel, f"{ours}/bias": bias}
  for theirs, ours in NORMS.items():
    found |= {f"{ours}/scale": layer[f"{theirs}.weight"], f"{ours}/bias": layer[f"{theirs}.bias"]}
  return found


def as_big_vision(tensors, size, *, stacked=False):
  """Returns big_vision's arrays of the same weights. Source: big_vision, models/vit.py."""
  outer = "vision_model."
  kernel = tensors[f"{outer}embeddings.patch_embedding.weight"]
  found = {
    "embedding/kernel": kernel.transpose(2, 3, 1, 0),
    "embedding/bias": tensors[f"{outer}embeddings.patch_embedding.bias"],
    "pos_embedding": tensors[POSITIONS][None],
    "Transformer/encoder_norm/scale": tensors[f"{outer}post_layernorm.weight"],
    "Transformer/encoder_norm/bias": tensors[f"{outer}post_layernorm.bias"],
  }
  if CLASS in tensors:
    found["cls"] = tensors[CLASS].reshape(1, 1, -1)
  blocks = []
  for n in range(size.depth):
    prefix = f"{outer}encoder.layers.{n}."
    layer = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    blocks.append(one_block(layer, size.num_heads))
  if stacked:
    return found | {
      f"Transformer/encoderblock/{name}": np.stack([block[name] for block in blocks])
      for name in blocks[0]
    }
  for n, block in enumerate(blocks):
    found |= {f"Transformer/encoderblock_{n}/{name}": array for name, array in block.items()}
  return found


def as_augreg(tensors, size):
  """Returns the arrays of the older files. Source: vision_transformer, models_vit.py."""
  found = as_big_vision(tensors, size)
  found["Transformer/posembed_input/pos_embedding"] = found.pop("pos_embedding")
  words = {"MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1"}
  words |= {"LayerNorm_1": "LayerNorm_2", "MlpBlock_0": "MlpBlock_3"}
  for old, new in words.items():
    found = {name.replace(old, new): array for name, array in found.items()}
  return found


def below(prefix, arrays):
  return {prefix + name: array for name, array in arrays.items()}


ONE = np.ones(1, np.float32)
BESIDE = {"txt/Encoder_0/encoderblock_0/MlpBlock_0/Dense_0/kernel": ONE, "t": ONE, "b": ONE}
"""What a file of two encoders holds beside the images'."""

POOL = {"MAPHead_0/probe": ONE, "MAPHead_0/MlpBlock_0/Dense_0/kernel": ONE, "head/bias": ONE}
"""Heads, of which nothing but the names is looked at."""


def files(size):
  """Returns (scheme, arrays, how many are dropped, carried) of one network in every form."""
  tensors = published(size)
  loop, scan = (as_big_vision(tensors, size, stacked=stacked) for stacked in (False, True))
  texts = {"text_model.head.weight": ONE, "logit_scale": ONE, "logit_bias": ONE}
  yield "eagle", tensors, 0, 0
  yield "eagle", tensors | drawn(head(size)) | texts, 3, 11
  for kind, arrays in (("big_vision", loop), ("big_vision_scan", scan)):
    yield kind, arrays, 0, 0
    yield kind, below("params/", arrays | POOL), 0, 3
    yield kind, below("params/", below("img/", arrays | POOL) | BESIDE), 3, 3
  state = {"opt/state/step": ONE, "opt/state/param_states/cls/grad_ema": ONE}
  yield "big_vision", below("opt/target/", loop) | state, 2, 0
  state = {"opt/0/mu/embedding/bias": ONE, "chrono/accum_train_time": ONE}
  yield "big_vision", below("params/", loop) | state, 2, 0
  yield "big_vision_scan", below("img/", scan) | {"llm/final_norm/scale": ONE}, 1, 0
  yield "augreg", as_augreg(tensors, size) | {"pre_logits/bias": ONE, "head/bias": ONE}, 0, 2
  yield "augreg", below("opt/target/", as_augreg(tensors, size)), 0, 0


def abstract(size):
  pixels = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, 3), jnp.float32)
  return jax.eval_shape(SigLip(size).init, jax.random.key(0), pixels)["params"]


def converted(source, size):
  """Returns scheme, plan, parameters by path and carried tensors of a file."""
  scheme = recognise(SCHEMES, source.entries())
  plan = engine.plan(source, scheme.table(size), abstract(size))
  params, carried = engine.fill(plan, source)
  return scheme.name, plan, engine.flatten(params), carried


@pytest.mark.parametrize(("name", "count"), [("released", 437), ("b16", 197), ("vit_l16", 390)])
def test_released_names_are_all_known(name, count):
  size = SIZES[name]
  names = shapes(size)
  assert len(names) == count
  leaves = engine.flatten(abstract(size))
  assert {name for name, _, _ in engine.expected_names(table(size), leaves)} == set(names)
  assert all(isinstance(table(size).match(name)[0], Carry) for name in head(size))


@pytest.mark.parametrize("size", [TINY, PLAIN, PLACED], ids=lambda size: size.class_token)
def test_all_schemes_give_the_same_parameters_and_every_name_back(size):
  _, _, expected, _ = converted(ArraySource(published(size)), size)
  for scheme, held, dropped, carried in files(size):
    name, plan, params, kept = converted(ArraySource(held), size)
    assert name == scheme
    assert (len(plan.dropped), len(kept)) == (dropped, carried)
    assert params.keys() == expected.keys()
    for path, array in params.items():
      np.testing.assert_array_equal(array, expected[path])
    back = dict(engine.export(plan, params, kept))
    assert set(back) | set(plan.dropped) == set(held)
    for tensor, array in back.items():
      np.testing.assert_array_equal(array, held[tensor])


def test_exports_have_the_names_of_transformers():
  assert [scheme.name for scheme in SCHEMES if scheme.exported] == ["eagle"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_an_npz_file_arrives_in_its_own_dtype(tmp_path, dtype):
  tensors = {name: array.astype(dtype) for name, array in published(TINY).items()}
  _, _, expected, _ = converted(ArraySource(tensors), TINY)
  arrays = below("params/", below("img/", as_big_vision(tensors, TINY)) | BESIDE)
  if dtype == ml_dtypes.bfloat16:
    arrays = {name: array.view("V2") for name, array in arrays.items()}  # as NumPy reads it back
  np.savez(tmp_path / "x.npz", **arrays)
  source = NpzSource(tmp_path / "x.npz")
  name, plan, params, _ = converted(source, TINY)
  assert name == "big_vision"
  for path, layout in stream.layouts_of(plan).items():
    assert layout.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(params[path], expected[path])


def test_tensors_of_all_blocks_are_one_slice_on_disk():
  _, plan, _, _ = converted(ArraySource(as_big_vision(published(TINY), TINY, stacked=True)), TINY)
  layout = stream.layouts_of(plan)["blocks/attention/query/kernel"]
  assert (layout.shape, layout.depth, layout.order) == ((2, 32, 32), 0, "C")


def test_a_clip_is_no_siglip():
  with pytest.raises(EagleError, match="it follows none"):
    recognise(SCHEMES, keys.load("clip_vit_large_patch14_336").tensors)


FOREIGN = {
  "eagle": (published, "vision_model.encoder.layers.0.mlp.gate.weight"),
  "big_vision": (
    lambda size: below("params/img/", as_big_vision(published(size), size)),
    "params/img/Transformer/encoderblock_0/MlpBlock_0/Dense_2/kernel",
  ),
  "big_vision_scan": (
    lambda size: as_big_vision(published(size), size, stacked=True),
    "Transformer/encoderblock/LayerNorm_2/scale",
  ),
  "augreg": (
    lambda size: below("opt/target/", as_augreg(published(size), size)),
    "opt/target/Transformer/encoderblock_0/LayerNorm_1/scale",
  ),
}


@pytest.mark.parametrize("scheme", FOREIGN)
def test_a_foreign_name_is_an_error_that_names_it(scheme):
  made, foreign = FOREIGN[scheme]
  with pytest.raises(EagleError, match=f"1 breaches:\n.*{foreign!r} is known to no rule"):
    converted(ArraySource(made(TINY) | {foreign: ONE}), TINY)


def test_a_class_token_is_told_where_the_size_has_none_and_the_reverse():
  with pytest.raises(EagleError, match=r"pos_embedding' has shape \[1, 10, 32\].* takes \[9, 32\]"):
    converted(ArraySource(as_augreg(published(PLACED), PLACED)), TINY)
  with pytest.raises(EagleError, match="'cls' is known to no rule"):
    converted(ArraySource(as_big_vision(published(PLAIN), PLAIN)), TINY)
  with pytest.raises(EagleError, match="a rule expects 'params/img/cls'"):
    converted(ArraySource(as_big_vision(published(TINY), TINY)), PLAIN)


@pytest.mark.parametrize("stacked", [False, True])
def test_other_heads_are_told(stacked):
  other = dataclasses.replace(TINY, num_heads=2)
  source = ArraySource(as_big_vision(published(other), other, stacked=stacked))
  with pytest.raises(EagleError, match=r"query/kernel': reshape takes the shape .*32, 4, 8\]"):
    converted(source, TINY)
