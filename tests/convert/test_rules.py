"""Weight tables: patterns, places, transforms and their inverses."""

import numpy as np
import pytest

from eagle_jax.convert import rules
from eagle_jax.convert.rules import Carry, Drop, Place, Rule, Table, merge

TRANSFORMS = (
  (rules.same, (3, 5), (3, 5)),
  (rules.linear, (4, 3), (3, 4)),
  (rules.conv, (8, 3, 5, 7), (5, 7, 3, 8)),
  (rules.depthwise, (6, 1, 5, 7), (5, 7, 1, 6)),
  (rules.squeeze, (1, 4, 5), (4, 5)),
  (rules.reshape((2, 6), (3, 4)), (2, 6), (3, 4)),
)


@pytest.mark.parametrize(("transform", "source", "target"), TRANSFORMS, ids=lambda v: str(v)[:20])
def test_transforms_announce_their_shape_and_lead_back(transform, source, target):
  array = np.random.default_rng(0).normal(size=source)
  made = transform.forward(array)
  assert made.shape == target == transform.shape(source)
  np.testing.assert_array_equal(transform.inverse(made), array)


def test_linear_swaps_rows_and_columns():
  array = np.arange(6).reshape(2, 3)
  np.testing.assert_array_equal(rules.linear.forward(array), [[0, 3], [1, 4], [2, 5]])


def test_conv_puts_channels_last():
  array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
  assert rules.conv.forward(array)[3, 4, 2, 1] == array[1, 2, 3, 4]


@pytest.mark.parametrize(
  ("transform", "shape"),
  [
    (rules.linear, (3,)),
    (rules.conv, (3, 4)),
    (rules.depthwise, (3, 2, 7, 7)),
    (rules.depthwise, (3, 7)),
    (rules.squeeze, (2, 3)),
    (rules.squeeze, ()),
    (rules.reshape((4,), (2, 2)), (5,)),
  ],
)
def test_a_transform_refuses_a_shape_it_is_not_for(transform, shape):
  with pytest.raises(ValueError, match="shape"):
    transform.shape(shape)


def test_reshape_keeps_the_number_of_elements():
  with pytest.raises(ValueError, match="differ"):
    rules.reshape((2, 3), (5,))


def test_captures_stand_for_digits_only():
  table = Table((Rule("blocks.{n}.weight", "blocks[{n}]/kernel"),))
  rule, values = table.match("blocks.12.weight")
  assert rules.place(rule, values) == Place("blocks/kernel", (12,))
  assert table.match("blocks.x.weight") is None
  assert table.match("xblocks.1.weight") is None
  assert table.match("blocks.1.weight.more") is None


def test_dots_of_a_pattern_are_dots():
  assert Table((Rule("a.b", "a"),)).match("aXb") is None


def test_a_repeated_capture_must_repeat():
  table = Table((Rule("s{n}.t{n}", "x[{n}]"),))
  assert table.match("s3.t3") is not None
  assert table.match("s3.t4") is None


def test_several_brackets_make_one_index():
  rule = Rule("stages.{s}.blocks.{b}.w", "stages[{s}]/blocks[{b}]/w")
  assert rules.place(rule, {"s": "1", "b": "4"}) == Place("stages/blocks/w", (1, 4))


def test_captures_may_stand_in_the_path():
  rule = Rule("stages.{s}.blocks.{b}.w", "stage_{s}[{b}]/w")
  assert rules.place(rule, {"s": "1", "b": "4"}) == Place("stage_1/w", (4,))


def test_slots_say_where_a_block_lies():
  table = Table((Rule("b.{n}.w", "layers/{slot}/w"),), {"0": "groups/run_0[0,0]", "1": "rest[0]"})
  rule, values = table.match("b.0.w")
  assert rules.place(rule, values) == Place("layers/groups/run_0/w", (0, 0))
  with pytest.raises(KeyError):
    rules.place(rule, {"n": "2"})


def test_merged_tables_keep_their_own_slots():
  one = Table((Rule("b.{n}", "{slot}/w"),), {"0": "x[0]"})
  two = Table((Rule("b.{n}", "{slot}/w"),), {"0": "y[0]"})
  both = merge(one.prefixed("one.", "1/"), two.prefixed("two.", "2/"))
  places = [rules.place(*both.match(name)) for name in ("one.b.0", "two.b.0")]
  assert places == [Place("1/x/w", (0,)), Place("2/y/w", (0,))]


def test_the_first_rule_that_matches_wins():
  table = Table((Drop("*.inv_freq", "a table"), Carry("*", "the rest")))
  assert isinstance(table.match("x.inv_freq")[0], Drop)
  assert isinstance(table.match("x.head")[0], Carry)


def test_a_prefix_stands_before_every_kind_of_rule():
  table = Table((Rule("w", "k"), Drop("*.freqs", ""), Carry("head.*", ""))).prefixed("p.", "q/")
  rule, values = table.match("p.w")
  assert rules.place(rule, values).path == "q/k"
  assert isinstance(table.match("p.rope.freqs")[0], Drop)
  assert isinstance(table.match("p.head.fc")[0], Carry)
  assert table.match("w") is None


@pytest.mark.parametrize(
  ("source", "target"), [("a.{n}", "a"), ("a", "a[{n}]"), ("a.{m}", "{slot}/a")]
)
def test_a_rule_must_be_invertible(source, target):
  with pytest.raises(ValueError, match="captures differ"):
    Rule(source, target)


def test_a_place_reads_like_an_index():
  assert str(Place("a/b")) == "a/b"
  assert str(Place("a/b", (2, 1))) == "a/b[2, 1]"
