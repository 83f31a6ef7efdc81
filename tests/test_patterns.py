"""Ordered path patterns: first match wins, nothing stays uncovered."""

import pytest

from eagle_jax import patterns
from eagle_jax.errors import EagleError


def test_the_first_matching_rule_wins():
  rules = ((r"vision/clip/.*", 1), (r"vision/.*", 2), (r".*", 3))
  found = patterns.assign(rules, ["vision/clip/a", "vision/sam/a", "projector/b"], what="x")
  assert found == {"vision/clip/a": 1, "vision/sam/a": 2, "projector/b": 3}


def test_a_pattern_must_match_the_whole_path():
  with pytest.raises(EagleError, match="vision/clip/a"):
    patterns.assign(((r"vision", 1),), ["vision/clip/a"], what="x")


def test_every_uncovered_path_is_named_with_what_was_assigned():
  with pytest.raises(EagleError, match=r"sharding: .* 2 match none: a, b"):
    patterns.assign((("c", 1),), ["a", "b", "c"], what="sharding")
