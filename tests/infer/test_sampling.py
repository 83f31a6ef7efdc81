import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.infer.sampling import Sampling, greedy, nucleus, sample

PROBABILITIES = np.array([0.1, 0.5, 0.05, 0.35])
LOGITS = jnp.asarray(np.log(PROBABILITIES)[None], jnp.float32)


def draws(sampling, count=4000):
  keys = jax.random.split(jax.random.key(7), count)
  tokens = jax.jit(jax.vmap(lambda key: sample(LOGITS, sampling, key)[0]))(keys)
  return np.bincount(tokens, minlength=4) / count


def test_greedy_takes_the_likeliest_and_the_first_among_equals():
  logits = jnp.asarray([[0.0, 2.0, 1.0], [3.0, 1.0, 3.0]])
  np.testing.assert_array_equal(greedy(logits), [1, 0])


@pytest.mark.parametrize(
  ("top_p", "kept"),
  [
    (1e-6, [1]),
    (0.49, [1]),
    (0.51, [1, 3]),
    (0.86, [0, 1, 3]),
    (0.96, [0, 1, 2, 3]),
    (1.0, [0, 1, 2, 3]),
  ],
)
def test_nucleus_is_the_smallest_set_that_holds_top_p(top_p, kept):
  out = np.asarray(nucleus(LOGITS, top_p))[0]
  assert np.flatnonzero(np.isfinite(out)).tolist() == kept
  np.testing.assert_array_equal(out[kept], np.asarray(LOGITS)[0, kept])


def test_nucleus_of_one_keeps_what_rounding_would_lose():
  logits = jnp.asarray([[20.0, 0.0, -30.0]])
  assert np.isfinite(nucleus(logits, 1.0)).all()


def test_rows_have_their_own_nucleus():
  out = nucleus(jnp.concatenate([LOGITS, LOGITS[:, ::-1]]), 0.4)
  np.testing.assert_array_equal(np.isfinite(out).argmax(axis=1), [1, 2])


def test_frequencies_follow_the_distribution():
  np.testing.assert_allclose(draws(Sampling()), PROBABILITIES, atol=0.03)


def test_temperature_sharpens_before_the_nucleus_is_cut():
  sharp = PROBABILITIES**2 / (PROBABILITIES**2).sum()
  np.testing.assert_allclose(draws(Sampling(temperature=0.5)), sharp, atol=0.03)
  # At this temperature the first token alone holds 0.6, unsharpened it holds 0.5.
  found = draws(Sampling(temperature=0.5, top_p=0.6))
  np.testing.assert_array_equal(found, [0, 1, 0, 0])


def test_a_low_temperature_is_greedy():
  np.testing.assert_array_equal(draws(Sampling(temperature=1e-3), 50), [0, 1, 0, 0])


def test_another_temperature_needs_no_compilation():
  traced = jax.jit(sample)
  for temperature in (0.2, 0.7):
    traced(LOGITS, Sampling(temperature=temperature, top_p=0.5), jax.random.key(0))
  assert traced._cache_size() == 1
