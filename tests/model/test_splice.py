import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.model.splice import splice
from eagle_jax.types import PLACEHOLDER

P = PLACEHOLDER


def _text(rows, length, width=3):
  """Text embeddings that are all different and positive."""
  return jnp.asarray(1 + np.arange(rows * length * width, dtype=np.float32)).reshape(
    rows, length, width
  )


def _image(rows, count, width=3):
  """Image tokens that are all different and negative."""
  return -_text(rows, count, width)


def _reference(text, image, tokens, valid):
  """What splicing means, one position at a time."""
  out = np.zeros_like(text)
  for b, row in enumerate(tokens):
    k = 0
    for s, token in enumerate(row):
      if token == P:
        out[b, s] = image[b, k]
        k += 1
      elif valid[b, s]:
        out[b, s] = text[b, s]
  return out


CASES = {
  "none": ([[5, 6, 7, 8]], [[1, 1, 1, 1]]),
  "middle": ([[5, P, P, 8]], [[1, 1, 1, 1]]),
  "at both ends": ([[P, 6, 7, P]], [[1, 1, 1, 1]]),
  "all": ([[P, P, P, P]], [[1, 1, 1, 1]]),
  "padded right": ([[5, P, P, 0], [5, 6, 0, 0]], [[1, 1, 1, 0], [1, 1, 0, 0]]),
  "padded left": ([[0, P, P, 5], [0, 0, 5, 6]], [[0, 1, 1, 1], [0, 0, 1, 1]]),
  "rows count alone": ([[P, P, 5, 6], [5, 6, P, P], [5, P, 6, P]], np.ones((3, 4))),
  "an empty row": ([[0, 0, 0, 0]], np.zeros((1, 4))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_kth_placeholder_takes_the_kth_image_token_of_its_row(case):
  tokens, valid = np.array(CASES[case][0]), np.array(CASES[case][1], bool)
  text, image = _text(*tokens.shape), _image(len(tokens), 5)
  got = jax.jit(splice)(text, image, tokens=tokens, valid=valid)
  np.testing.assert_array_equal(got, _reference(np.array(text), np.array(image), tokens, valid))


def test_without_image_tokens_only_padding_changes():
  tokens, valid = jnp.array([[5, 6, 0]]), jnp.array([[True, True, False]])
  text = _text(1, 3)
  got = splice(text, None, tokens=tokens, valid=valid)
  np.testing.assert_array_equal(got, np.array(text) * np.array([1, 1, 0])[None, :, None])


def test_a_row_with_too_many_placeholders_reads_nan_not_a_token_twice():
  tokens = jnp.array([[P, P, P, 5]])
  got = splice(_text(1, 4), _image(1, 2), tokens=tokens, valid=jnp.ones((1, 4), bool))
  np.testing.assert_array_equal(np.isnan(got).all(-1), [[False, False, True, False]])


def test_gradients_reach_each_image_token_once_and_no_unused_one():
  tokens, valid = jnp.array([[5, P, P, 0]]), jnp.array([[True, True, True, False]])

  def total(text, image):
    return splice(text, image, tokens=tokens, valid=valid).sum()

  text, image = jax.grad(total, argnums=(0, 1))(_text(1, 4), _image(1, 3))
  np.testing.assert_array_equal(text[0, :, 0], [1, 0, 0, 0])
  np.testing.assert_array_equal(image[0, :, 0], [1, 1, 0])


def test_the_dtype_is_that_of_the_text():
  tokens, valid = jnp.array([[5, P]]), jnp.ones((1, 2), bool)
  text = _text(1, 2).astype(jnp.bfloat16)
  assert splice(text, _image(1, 1), tokens=tokens, valid=valid).dtype == jnp.bfloat16


def test_rows_that_share_slots_take_them_one_after_another():
  tokens = np.array([[P, 5, P, 6], [7, 8, 9, P], [5, 6, 7, 8], [P, P, P, 0]])
  valid = tokens != 0
  text, image = _text(4, 4), _image(2, 3)
  got = jax.jit(splice)(text, image, tokens=tokens, valid=valid)
  # As if the rows of a group were one long row.
  expected = _reference(
    np.array(text).reshape(2, 8, 3), np.array(image), tokens.reshape(2, 8), valid.reshape(2, 8)
  )
  np.testing.assert_array_equal(got, expected.reshape(4, 4, 3))
