import dataclasses
import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.infer.unstack import unstack
from eagle_jax.language import LANGUAGE_MODELS, cache
from eagle_jax.language.llama import Llama, causal_mask, segment_mask
from eagle_jax.types import PLACEHOLDER

TINY = LANGUAGE_MODELS["tiny"]


def rows(lengths, side="right", columns=6):
  valid = np.zeros((len(lengths), columns), bool)
  for row, length in zip(valid, lengths, strict=True):
    row[:length] = True
  valid = valid if side == "right" else valid[:, ::-1]
  positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0).astype(np.int32)
  return jnp.asarray(valid), jnp.asarray(positions)


def whole(model, tokens, valid, positions):
  hidden = model(model.embed(tokens), valid, positions)
  return model.logits(hidden)


@functools.cache
def make(size=TINY, **fields):
  model = Llama(size, **fields)
  valid, positions = rows([2])
  tokens = jnp.zeros(valid.shape, jnp.int32)
  init = functools.partial(model.init, method=whole)
  return model, jax.jit(init)(jax.random.key(0), tokens, valid, positions)["params"]


@functools.partial(jax.jit, static_argnums=0)
def score(model, params, tokens, valid, positions):
  return model.apply({"params": params}, tokens, valid, positions, method=whole)


def tokens_like(valid, seed=0):
  drawn = np.random.default_rng(seed).integers(3, TINY.vocab, valid.shape)
  return jnp.asarray(drawn, jnp.int32)


def test_parameter_paths_are_the_contract():
  _, params = make()
  leaves = flax.traverse_util.flatten_dict(params, sep="/")
  found = {path: leaf.shape for path, leaf in leaves.items()}
  assert found == {
    "embed/embedding": (97, 48),
    "layers/attention_norm/scale": (2, 48),
    "layers/attention/query/kernel": (2, 48, 48),
    "layers/attention/key/kernel": (2, 48, 16),
    "layers/attention/value/kernel": (2, 48, 16),
    "layers/attention/out/kernel": (2, 48, 48),
    "layers/mlp_norm/scale": (2, 48),
    "layers/mlp/gate/kernel": (2, 48, 96),
    "layers/mlp/up/kernel": (2, 48, 96),
    "layers/mlp/down/kernel": (2, 96, 48),
    "final_norm/scale": (48,),
    "head/kernel": (48, 97),
  }


def test_tied_logits_come_from_the_embedding_table():
  size = dataclasses.replace(TINY, tied=True)
  model, params = make(size)
  assert "head" not in params
  hidden = jax.random.normal(jax.random.key(1), (1, 3, TINY.width))
  logits = model.apply({"params": params}, hidden, method="logits")
  np.testing.assert_allclose(logits[0], hidden[0] @ params["embed"]["embedding"].T, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_row_alone(side):
  model, params = make()
  valid, positions = rows([6, 3], side)
  tokens = tokens_like(valid)
  out = score(model, params, tokens, valid, positions)
  keep = np.asarray(valid[1])
  alone = tokens[1:, keep]
  alone_valid, alone_positions = rows([3], columns=3)
  expected = score(model, params, alone, alone_valid, alone_positions)
  np.testing.assert_allclose(out[1, keep], expected[0], atol=2e-6)
  assert np.isfinite(out).all()


def test_padding_gives_finite_gradients():
  model, params = make()
  valid, positions = rows([6, 2], "left")
  tokens = tokens_like(valid)

  def loss(params):
    logits = score(model, params, tokens, valid, positions)
    return jnp.sum(jnp.where(valid[:, :, None], logits, 0.0) ** 2)

  gradients = jax.grad(loss)(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_no_token_sees_a_later_one():
  model, params = make()
  valid, positions = rows([6])
  tokens = tokens_like(valid)
  changed = tokens.at[0, 4].add(-1)
  before = score(model, params, tokens, valid, positions)
  after = score(model, params, changed, valid, positions)
  np.testing.assert_array_equal(before[0, :4], after[0, :4])
  assert np.abs(before[0, 4:] - after[0, 4:]).max(axis=-1).min() > 1e-4


def test_causal_mask_hides_padding_and_leaves_no_query_blind():
  valid = jnp.asarray([[False, True, True], [True, True, False]])
  mask = causal_mask(valid)
  assert mask.shape == (2, 1, 3, 3)
  np.testing.assert_array_equal(mask[0, 0], [[1, 0, 0], [0, 1, 0], [0, 1, 1]])
  np.testing.assert_array_equal(mask[1, 0], [[1, 0, 0], [1, 1, 0], [1, 1, 0]])


def test_segment_mask_shows_the_own_segment_up_to_itself():
  mask = segment_mask(jnp.asarray([[1, 1, 2, 0, 0]]))
  wanted = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]
  np.testing.assert_array_equal(mask[0, 0], wanted)


def test_packed_rows_equal_the_rows_alone():
  model, params = make()
  valid, positions = rows([3, 2])
  embeddings = jax.random.normal(jax.random.key(4), (2, 6, TINY.width))
  expected = model.apply({"params": params}, embeddings, valid, positions)
  packed = jnp.concatenate([embeddings[0, :3], embeddings[1, :2], embeddings[0, 5:]])[None]
  segments = jnp.asarray([[1, 1, 1, 2, 2, 0]])
  out = model.apply(
    {"params": params},
    packed,
    segments > 0,
    jnp.asarray([[0, 1, 2, 0, 1, 0]]),
    segments=segments,
  )
  np.testing.assert_allclose(out[0, :3], expected[0, :3], atol=2e-6)
  np.testing.assert_allclose(out[0, 3:5], expected[1, :2], atol=2e-6)
  assert np.isfinite(out).all()


def test_rematerialisation_changes_no_number():
  model, params = make()
  valid, positions = rows([6, 4])
  tokens = tokens_like(valid)

  def gradients(model):
    def loss(params):
      return jnp.mean(score(model, params, tokens, valid, positions) ** 2)

    return jax.grad(loss)(params)

  kept, recomputed = gradients(model), gradients(Llama(TINY, remat="block"))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, recomputed)


def test_an_unknown_policy_names_the_nearest():
  with pytest.raises(EagleError, match="did you mean 'block'"):
    make(remat="blok")


def test_blocks_are_probed_in_order():
  model, params = make()
  valid, positions = rows([4], columns=4)
  embeddings = jax.random.normal(jax.random.key(2), (1, 4, TINY.width))
  hidden, extra = model.apply({"params": params}, embeddings, valid, positions, mutable=["probes"])
  (blocks,) = extra["probes"]["layers"]["block"]
  assert blocks.shape == (2, 1, 4, TINY.width)
  last = np.asarray(blocks[-1], np.float64)
  scaled = last / np.sqrt((last**2).mean(-1, keepdims=True) + TINY.norm_eps)
  np.testing.assert_allclose(hidden, scaled * np.asarray(params["final_norm"]["scale"]), atol=1e-5)


def test_half_precision_gives_float32_logits():
  model, params = make(dtype=jnp.bfloat16)
  assert params["head"]["kernel"].dtype == jnp.float32
  valid, positions = rows([6])
  tokens = tokens_like(valid)
  out = score(model, params, tokens, valid, positions)
  assert out.dtype == jnp.float32
  exact = score(Llama(TINY), params, tokens, valid, positions)
  assert 0 < np.abs(out - exact).max() < 0.1


def test_stored_half_precision_parameters_compute_in_float32():
  model, params = make()
  halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
  wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves)
  valid, positions = rows([6])
  tokens = tokens_like(valid)
  apply = lambda p: score(model, p, tokens, valid, positions)
  np.testing.assert_allclose(apply(halves), apply(wide), atol=1e-6)


def test_a_placeholder_embeds_without_touching_the_table_out_of_range():
  model, params = make()
  tokens = jnp.asarray([[PLACEHOLDER, 0]])
  out = model.apply({"params": params}, tokens, method="embed")
  np.testing.assert_array_equal(out[0, 0], out[0, 1])


def test_extending_piece_by_piece_equals_the_whole():
  model, params = make()
  valid, positions = rows([6, 5], "left")
  embeddings = jax.random.normal(jax.random.key(3), (2, 6, TINY.width))
  expected = model.apply({"params": params}, embeddings, valid, positions)
  single, flat = Llama(TINY, stacked=False), unstack(params)
  extend = jax.jit(functools.partial(single.apply, method="extend"), static_argnames="start")
  caches = cache.empty(TINY, rows=2, length=8, dtype=jnp.float32)
  mask = causal_mask(valid)
  out = []
  for first, last in ((0, 3), (3, 4), (4, 6)):
    # Slots past the sixth are never shown, as the mask is only six wide.
    part = slice(first, last)
    given = (embeddings[:, part], mask[:, :, part], positions[:, part])
    hidden, caches = extend({"params": flat}, *given, caches=caches, start=first)
    out.append(hidden)
  np.testing.assert_allclose(jnp.concatenate(out, axis=1), expected, atol=5e-6)
