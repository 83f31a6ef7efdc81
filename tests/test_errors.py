"""The error a user sees."""

from eagle_jax.errors import EagleError


def test_it_carries_its_sentence_and_an_exit_code():
  error = EagleError("the rule, 1 and 2, here")
  assert str(error) == "the rule, 1 and 2, here"
  assert error.exit_code == 2
