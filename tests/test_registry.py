"""Looking names up."""

import pytest

from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup, nearest


def test_a_known_name_gives_its_value():
  assert lookup({"clip": 1, "sam": 2}, "sam", what="expert") == 2


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
  with pytest.raises(
    EagleError, match=r"no expert is called 'clp', did you mean 'clip'\? Known: c"
  ):
    lookup({"clip": 1, "sam": 2}, "clp", what="expert")


def test_nothing_is_suggested_where_nothing_is_near():
  assert nearest("zzz", ["clip"]) == ""
