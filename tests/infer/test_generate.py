import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.infer import generate as generation
from eagle_jax.infer.generate import Limits, Prompt, decode, generate, prefill
from eagle_jax.infer.sampling import Sampling
from eagle_jax.infer.unstack import unstack
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.language.llama import Llama

SIZE = LANGUAGE_MODELS["tiny"]
MODEL = Llama(SIZE, stacked=False)
LENGTHS = (7, 3, 5)
LIMITS = Limits(max_new_tokens=6, scores=True)


@functools.cache
def stacked():
  """Weights with an opinion: logits far enough apart to survive another order of sums."""
  model = Llama(SIZE)

  def init(key):
    row = jnp.zeros((1, 2), jnp.int32)
    whole = lambda m: m.logits(m(m.embed(row), row == 0, row))
    return model.init(key, method=whole)["params"]

  params = jax.jit(init)(jax.random.key(5))
  params["embed"]["embedding"] *= 5.0
  params["head"]["kernel"] *= 3.0
  return params


@functools.cache
def params():
  return unstack(stacked())


def prompt(lengths=LENGTHS, *, columns=7, side="left", only=None):
  """Rows of random vectors; a row's content does not depend on where it stands."""
  valid = np.zeros((len(lengths), columns), bool)
  vectors = np.full((len(lengths), columns, SIZE.width), 7.0, np.float32)
  for row, length in enumerate(lengths):
    start = columns - length if side == "left" else 0
    valid[row, start : start + length] = True
    drawn = np.random.default_rng(row).normal(size=(length, SIZE.width))
    vectors[row, start : start + length] = drawn
  positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0).astype(np.int32)
  rows = slice(None) if only is None else slice(only, only + 1)
  return Prompt(jnp.asarray(vectors[rows]), jnp.asarray(valid[rows]), jnp.asarray(positions[rows]))


@jax.jit
def whole_row(params, vectors, valid):
  """Logits [13, V] of one right-padded row, and the embedding of each likeliest token."""
  model = Llama(SIZE)
  positions = jnp.arange(vectors.shape[0])[None]
  hidden = model.apply({"params": params}, vectors[None], valid[None], positions)
  logits = model.apply({"params": params}, hidden, method="logits")
  return logits[0], model.apply({"params": params}, logits.argmax(-1), method="embed")[0]


@functools.cache
def by_hand(row, steps=6):
  """Greedy tokens and logits of one row without any cache: the whole row, every time."""
  given = prompt(columns=7 + steps, side="right", only=row)
  vectors, valid = np.array(given.embeddings[0]), np.array(given.valid[0])
  scores = []
  for new in range(LENGTHS[row], LENGTHS[row] + steps):
    logits, embedded = whole_row(stacked(), vectors, valid)
    scores.append(np.asarray(logits[new - 1]))
    vectors[new], valid[new] = embedded[new - 1], True
  return np.argmax(scores, axis=1).tolist(), np.stack(scores)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batched_greedy_equals_each_row_recomputed_without_a_cache(side):
  out = generate(MODEL, params(), prompt(side=side), limits=LIMITS)
  for row in range(3):
    tokens, scores = by_hand(row)
    assert out.tokens[row].tolist() == tokens
    np.testing.assert_allclose(out.scores[row], scores, atol=1e-4)
  assert out.lengths.tolist() == [6, 6, 6]
  assert len({tuple(by_hand(row)[0]) for row in range(3)}) == 3


def test_a_row_alone_and_in_a_wider_bucket_gives_the_same_tokens():
  for row in range(3):
    alone = generate(MODEL, params(), prompt(only=row), limits=LIMITS)
    assert alone.tokens[0].tolist() == by_hand(row)[0]
  wide = generate(MODEL, params(), prompt(columns=11), limits=LIMITS)
  assert wide.tokens.tolist() == [by_hand(row)[0] for row in range(3)]


def test_rows_end_by_themselves_and_the_loop_when_all_have():
  expected = [by_hand(row)[0] for row in range(3)]
  ends = (expected[0][1], expected[1][3], expected[2][2])
  limits = Limits(max_new_tokens=6, eos_ids=ends, pad_id=96)
  state = prefill(MODEL, params(), prompt(), limits=limits, sampling=None, key=jax.random.key(0))
  state = decode(MODEL, params(), state, limits=limits, sampling=None)
  lengths = []
  for row, tokens in enumerate(expected):
    lengths.append(next(n for n, token in enumerate(tokens, 1) if token in ends))
    kept = tokens[: lengths[row]]
    assert state.generated.tokens[row].tolist() == kept + [96] * (6 - lengths[row])
  assert state.generated.lengths.tolist() == lengths
  assert min(lengths) < max(lengths) < 6
  assert state.step == max(lengths)


def test_one_token_needs_no_step_of_the_loop():
  out = generate(MODEL, params(), prompt(), limits=Limits(max_new_tokens=1))
  assert out.tokens[:, 0].tolist() == [by_hand(row)[0][0] for row in range(3)]
  assert out.scores is None


def test_the_caches_are_donated_and_written_in_place():
  state = prefill(MODEL, params(), prompt(), limits=LIMITS, sampling=None, key=jax.random.key(0))
  pointers = {array.unsafe_buffer_pointer() for array in jax.tree.leaves(state.caches)}
  assert len(pointers) == 2 * SIZE.depth
  assert state.caches[0].keys.shape == (3, 7 + 6, SIZE.num_kv_heads, SIZE.head_dim)
  after = decode(MODEL, params(), state, limits=LIMITS, sampling=None)
  assert state.caches[0].keys.is_deleted()
  assert {a.unsafe_buffer_pointer() for a in jax.tree.leaves(after.caches)} == pointers


def test_sampling_follows_its_key_and_its_nucleus():
  run = lambda seed, **how: generate(
    MODEL, params(), prompt(), limits=LIMITS, sampling=Sampling(**how), key=jax.random.key(seed)
  ).tokens.tolist()
  assert run(0, temperature=3.0) == run(0, temperature=3.0)
  assert run(0, temperature=3.0) != run(1, temperature=3.0)
  assert run(0, top_p=1e-6) == [by_hand(row)[0] for row in range(3)]


def test_the_same_shapes_compile_once():
  generate(MODEL, params(), prompt(), limits=LIMITS)
  counts = generation.prefill._cache_size(), generation.decode._cache_size()
  generate(MODEL, params(), prompt((2, 6, 7)), limits=LIMITS)
  assert (generation.prefill._cache_size(), generation.decode._cache_size()) == counts


@pytest.mark.parametrize(
  ("limits", "sampling", "words"),
  [
    (Limits(max_new_tokens=0), None, "at least 1, it is 0"),
    (Limits(max_new_tokens=1), Sampling(), "needs a key"),
  ],
)
def test_what_cannot_be_answered_is_refused(limits, sampling, words):
  with pytest.raises(EagleError, match=words):
    generate(MODEL, params(), prompt(), limits=limits, sampling=sampling)
