import dataclasses
import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from eagle_jax import config, vision
from eagle_jax.errors import EagleError
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.model.eagle import Eagle, EagleSize, abstract_params, build, init_params
from eagle_jax.types import PLACEHOLDER, Batch

SIDE, GRID = 8, 2
N = GRID**2
LENGTH = 2 * N + 2  # one length for all tests: one compilation
X4 = ("clip", "convnext", "eva02", "pix2struct")
X5 = ("clip", "convnext", "sam", "eva02", "pix2struct")


@dataclasses.dataclass(frozen=True)
class PatchSize:
  image_size: int = SIDE
  channels: int = 5


class Patches(nn.Module):
  """The smallest expert there is: one dense layer per patch."""

  size: PatchSize
  dtype: object
  remat: str

  @nn.compact
  def __call__(self, pixels):
    return nn.Conv(self.size.channels, (4, 4), (4, 4), dtype=self.dtype, name="patches")(pixels)


@pytest.fixture(scope="module")
def eagle():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(vision.EXPERTS, "patches", types.SimpleNamespace(module=Patches))
    yield Eagle(
      EagleSize(
        experts=(("patches", PatchSize()),),
        language=LANGUAGE_MODELS["tiny"],
        image_size=SIDE,
        grid_side=GRID,
      )
    )


@pytest.fixture(scope="module")
def params(eagle):
  return jax.jit(lambda key: init_params(eagle, key))(jax.random.key(0))


def _images(rows, slots, seed=0):
  shape = (rows, slots, SIDE, SIDE, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _batch(rows, images, left=False, length=LENGTH):
  """Pads rows of ids to one length; None stands for the N placeholders of an image."""
  rows = [[i for t in row for i in ([PLACEHOLDER] * N if t is None else [t])] for row in rows]
  tokens = np.zeros((len(rows), length), np.int32)
  valid = np.zeros((len(rows), length), bool)
  for b, row in enumerate(rows):
    where = slice(length - len(row), length) if left else slice(0, len(row))
    tokens[b, where], valid[b, where] = row, True
  positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0).astype(np.int32)
  return Batch(
    images=jnp.asarray(images),
    tokens=jnp.asarray(tokens),
    valid=jnp.asarray(valid),
    loss_mask=jnp.asarray(valid),
    positions=jnp.asarray(positions),
  )


@functools.partial(jax.jit, static_argnames=("eagle", "method"))
def _apply(eagle, params, *args, method="__call__"):
  return eagle.apply({"params": params}, *args, method=method)


def test_parts_stand_under_their_names_and_init_fills_the_abstract_tree(eagle, params):
  assert set(params) == {"vision", "projector", "language"}
  assert set(params["vision"]) == {"patches"}
  width = eagle.size.language.width
  assert params["projector"]["layer_0"]["kernel"].shape == (5, width)
  shapes, wanted = (
    jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    for tree in (params, abstract_params(eagle))
  )
  assert shapes == wanted


def test_logits_are_float32_for_every_position(eagle, params):
  logits = _apply(eagle, params, _batch([[5, None, 6], [7, 8]], _images(2, 2)))
  assert logits.shape == (2, LENGTH, 97)
  assert logits.dtype == jnp.float32
  assert np.isfinite(logits).all()


def test_without_image_slots_nothing_but_the_language_model_is_needed(eagle, params):
  text = [[5, 6, 7], [8, 9]]
  alone = _apply(eagle, {"language": params["language"]}, _batch(text, _images(2, 0)))
  beside = _apply(eagle, params, _batch(text, _images(2, 2)))
  np.testing.assert_allclose(alone, beside, atol=1e-6)


def test_embeddings_hold_text_then_image_tokens_in_order_then_zeros(eagle, params):
  images = _images(2, 2)
  got = _apply(eagle, params, _batch([[5, None, None, 6], [7]], images), method="embed")
  tokens = _apply(eagle, params, images, method="encode_images")
  assert tokens.shape == (2, 2 * N, eagle.size.language.width)
  table = params["language"]["embed"]["embedding"]
  np.testing.assert_array_equal(got[0, 0], table[5])
  np.testing.assert_allclose(got[0, 1 : 1 + 2 * N], tokens[0], atol=1e-6)
  np.testing.assert_array_equal(got[0, -1], table[6])
  np.testing.assert_array_equal(got[1, 0], table[7])
  np.testing.assert_array_equal(got[1, 1:], 0)


def test_images_are_encoded_each_for_itself(eagle, params):
  images = _images(2, 2)
  together = _apply(eagle, params, images, method="encode_images")
  turned = _apply(eagle, params, images[::-1, ::-1].copy(), method="encode_images")
  first, second = jnp.split(turned[::-1], 2, axis=1)
  np.testing.assert_allclose(together, jnp.concatenate([second, first], axis=1), atol=1e-6)


def test_both_padding_sides_give_the_same_logits_at_content(eagle, params):
  rows, images = [[5, None, 6, 7], [8, 9]], _images(2, 2)
  right, left = _batch(rows, images), _batch(rows, images, left=True)
  got_right, got_left = _apply(eagle, params, right), _apply(eagle, params, left)
  np.testing.assert_allclose(got_right[right.valid], got_left[left.valid], atol=2e-6)


def test_a_picture_moves_the_logits_from_its_place_on(eagle, params):
  rows = [[5, 6, None, 7], [8]]
  one = _apply(eagle, params, _batch(rows, _images(2, 2, seed=1)))
  two = _apply(eagle, params, _batch(rows, _images(2, 2, seed=2)))
  change = np.abs(one - two).max(axis=-1)
  assert (change[0, :2] == 0).all()
  assert (change[0, 2 : 3 + N] > 1e-3).all()
  assert (change[1] == 0).all()


def test_bfloat16_computes_close_to_float32(eagle, params):
  batch = _batch([[5, None, 6], [7, 8]], _images(2, 2))
  half = dataclasses.replace(eagle, dtype=jnp.bfloat16)
  exact, rough = _apply(eagle, params, batch), _apply(half, params, batch)
  assert rough.dtype == jnp.float32
  embedded = jax.eval_shape(lambda p: half.apply({"params": p}, batch, method="embed"), params)
  assert embedded.dtype == jnp.bfloat16
  difference = (rough - exact)[batch.valid]
  assert 0 < np.linalg.norm(difference) < 0.05 * np.linalg.norm(exact[batch.valid])


@pytest.mark.parametrize(("dtype", "remat"), [("float32", "none"), ("bfloat16", "block")])
def test_all_experts_trace_there_and_back_in_both_types(dtype, remat):
  demo = config.Model(
    experts=tuple(f"{name}@demo" for name in X5),
    language="demo",
    image_size=64,
    grid_side=4,
    dtype=dtype,
    remat=remat,
  )
  eagle = build(demo)
  params = abstract_params(eagle)
  batch = _batch([[5] * 20], np.zeros((1, 1, 64, 64, 3), np.uint8), length=20)

  def mean(params, batch):
    logits = eagle.apply({"params": params}, batch)
    assert (logits.shape, logits.dtype) == ((1, 20, 512), jnp.float32)
    return logits.mean()

  gradients = jax.eval_shape(jax.grad(mean), params, batch)
  assert jax.tree.map(lambda leaf: leaf.shape, gradients) == jax.tree.map(
    lambda leaf: leaf.shape, params
  )


@pytest.mark.parametrize("experts", [("sam",), ("eva02", "clip"), X4])
def test_any_selection_of_experts_builds_in_the_order_given(experts):
  demo = config.Model(
    experts=tuple(f"{name}@demo" for name in experts), language="demo", image_size=64, grid_side=4
  )
  eagle = build(demo)
  params = abstract_params(eagle)
  assert set(params["vision"]) == set(experts)
  channels = sum(size.channels for _, size in eagle.size.experts)
  assert params["projector"]["layer_0"]["kernel"].shape == (channels, 128)
  assert [name for name, _ in eagle.size.experts] == list(experts)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"experts": ("clop",)}, "clip"),
    ({"experts": ("clip@relesed",)}, "released"),
    ({"fusion": "chanel_concat"}, "channel_concat"),
    ({"projector": "mlp2x_gelo"}, "mlp2x_gelu"),
    ({"language": "vicuna_7B"}, "vicuna_7b"),
    ({"dtype": "bfloat"}, "bfloat16"),
  ],
)
def test_an_unknown_name_is_answered_with_the_nearest(change, message):
  with pytest.raises(EagleError, match=f"did you mean '{message}'"):
    build(config.Model(**change))


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Tensors that the released files hold and nothing computes with: they are carried beside
# the checkpoint. CLIP's norm after the last block; ConvNeXt's head of 1000 classes.
CARRIED = {"clip": 2 * 1024, "convnext": 2 * 3072 + 1000 * 3072 + 1000}
MILLIONS = {
  "clip": 303.507,
  "convnext": 846.471,
  "sam": 307.688,
  "eva02": 303.389,
  "pix2struct": 512.812,
}


@pytest.mark.parametrize(
  ("experts", "total", "channels"), [(X5, 2273.867, 7680), (X4, 1966.179, 6656)]
)
def test_the_flagships_have_the_published_number_of_parameters(experts, total, channels):
  eagle = build(config.Model(experts=experts))
  params = abstract_params(eagle)
  counts = {name: _count(params["vision"][name]) + CARRIED.get(name, 0) for name in experts}
  assert {name: round(count / 1e6, 3) for name, count in counts.items()} == {
    name: MILLIONS[name] for name in experts
  }
  assert round(sum(counts.values()) / 1e6, 3) == total
  assert _count(params["projector"]) == channels * 4096 + 4096 + 4096 * 4096 + 4096
  assert _count(params["language"]) == 6_738_415_616
  leaves = flatten_dict(params, sep="/")
  assert leaves["language/layers/attention/query/kernel"].shape == (32, 4096, 4096)
  assert leaves["projector/layer_0/kernel"].shape == (channels, 4096)
  assert eagle.size.image_tokens == 1024
