import itertools

import pytest

from eagle_jax.nn.layout import Layout, Run


@pytest.mark.parametrize(
  ("kinds", "unit", "count", "rest"),
  [
    ("wwgwwg", (Run("w", 2), Run("g", 1)), 2, ()),
    ("wwgw", (Run("w", 2), Run("g", 1)), 1, (Run("w", 1),)),
    ("wwgwwgww", (Run("w", 2), Run("g", 1)), 2, (Run("w", 2),)),
    ("wgwg", (Run("w", 1), Run("g", 1)), 2, ()),
    ("bbbb", (Run("b", 1),), 4, ()),
    ("wwwg", (Run("w", 3), Run("g", 1)), 1, ()),
    ("g", (Run("g", 1),), 1, ()),
    (
      "gwgwwgw",
      (Run("g", 1), Run("w", 1), Run("g", 1), Run("w", 2)),
      1,
      (Run("g", 1), Run("w", 1)),
    ),
  ],
)
def test_folds_into_units_and_a_rest(kinds, unit, count, rest):
  layout = Layout(tuple(kinds))
  assert (layout.unit, layout.count, layout.rest) == (unit, count, rest)


def test_released_stacks():
  eva02 = Layout(("window", "window", "global") * 8)
  sam = Layout((("window",) * 5 + ("global",)) * 4)
  assert (eva02.count, eva02.period, eva02.rest) == (8, 3, ())
  assert (sam.count, sam.period, sam.rest) == (4, 6, ())
  assert eva02.slot(23) == "groups/run_1[7,0]"
  assert sam.slot(10) == "groups/run_0[1,4]"


def test_slots_name_the_rest_with_one_index():
  layout = Layout(tuple("wwgw"))
  assert [layout.slot(n) for n in range(4)] == [
    "groups/run_0[0,0]",
    "groups/run_0[0,1]",
    "groups/run_1[0,0]",
    "rest/run_0[0]",
  ]
  assert layout.slots()["3"] == "rest/run_0[0]"
  assert layout.probe(2) == ("groups/run_1/block", (0, 0))


def test_every_stack_gives_every_block_its_own_place_of_its_kind():
  stacks = [kinds for n in range(1, 8) for kinds in itertools.product("wg", repeat=n)]
  for kinds in stacks:
    layout = Layout(kinds)
    places = [layout.place(n) for n in range(layout.depth)]
    assert len(set(places)) == layout.depth
    for kind, (path, index) in zip(kinds, places, strict=True):
      part, run = path.split("/run_")
      found = (layout.unit if part == "groups" else layout.rest)[int(run)]
      assert found.kind == kind
      assert index[-1] < found.length
    # Applied group by group, run by run, the blocks come in their own order.
    in_groups = list(itertools.chain(*(run.kind * run.length for run in layout.unit)))
    in_rest = list(itertools.chain(*(run.kind * run.length for run in layout.rest)))
    assert tuple(in_groups * layout.count + in_rest) == kinds


def test_refuses_what_has_no_place():
  with pytest.raises(ValueError, match="at least one block"):
    Layout(())
  with pytest.raises(IndexError, match="block 3 of a stack of 3"):
    Layout(("b",) * 3).slot(3)
  with pytest.raises(IndexError, match="block -1"):
    Layout(("b",) * 3).place(-1)
