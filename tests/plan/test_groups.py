"""Groups of devices, and the axes they lie along."""

import numpy as np
import pytest

from eagle_jax.plan import groups

MESH = {"data": 2, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("replica_groups={{0,2},{1,3}}, dimensions={0}", [[0, 2], [1, 3]]),
    ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
    ("replica_groups=[2,4]<=[4,2]T(1,0), x", [[0, 2, 4, 6], [1, 3, 5, 7]]),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}, x", [[0, 1], [2, 3]]),
    ("replica_groups=mesh['a'=2,'b'=1,'c'=2] {'a','c'}", [[0, 1, 2, 3]]),
    ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ("replica_groups={}, x", [list(range(8))]),
    ("source_target_pairs={{0,1},{2,2},{1,0}}, x", [[0, 1], [1, 0]]),
  ],
)
def test_every_way_of_naming_groups_is_read(text, expected):
  np.testing.assert_array_equal(groups.members(text, 8), expected)


@pytest.mark.parametrize(
  ("members", "expected"),
  [
    ([[0, 1], [2, 3]], ("tensor",)),
    ([[0, 2, 4, 6]], ("fsdp",)),
    ([[0, 8]], ("data",)),
    ([[0, 2, 4, 6, 8, 10, 12, 14]], ("data", "fsdp")),
    ([list(range(16))], ("data", "fsdp", "tensor")),
    ([[0, 2], [2, 4], [6, 0]], ("fsdp",)),
  ],
)
def test_axes_are_those_along_which_members_differ(members, expected):
  assert groups.axes(np.array(members), MESH) == expected
