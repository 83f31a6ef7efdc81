"""The sharding tables."""

import pytest
from jax.sharding import PartitionSpec

from eagle_jax.errors import EagleError
from eagle_jax.sharding import rules

MESH = {"data": 2, "fsdp": 4, "tensor": 2, "sequence": 1}


@pytest.mark.parametrize(
  ("path", "shape", "spec"),
  [
    ("language/embed/embedding", (64, 32), ("tensor", "fsdp")),
    ("language/layers/attention/query/kernel", (3, 32, 64), (None, "fsdp", "tensor")),
    ("language/layers/attention/out/kernel", (3, 64, 32), (None, "tensor", "fsdp")),
    ("vision/eva02/groups/run_0/mlp/gate/kernel", (2, 2, 32, 64), (None, None, "fsdp", "tensor")),
    ("vision/clip/patches/kernel", (14, 14, 3, 32), (None, None, None, "fsdp")),
    ("vision/clip/blocks/mlp/fc1/bias", (3, 64), (None, None)),
    ("projector/layer_0/kernel", (96, 32), ("fsdp", "tensor")),
    ("language/final_norm/scale", (32,), (None,)),
  ],
)
def test_paths_get_the_axes_of_the_table(path, shape, spec):
  assert rules.specs({path: shape}, MESH) == {path: PartitionSpec(*spec)}


def test_a_side_that_an_axis_does_not_divide_stays_whole():
  path = "vision/eva02/rest/run_0/mlp/gate/kernel"
  assert rules.specs({path: (1, 32, 85)}, MESH)[path] == PartitionSpec(None, "fsdp", None)


def test_a_parameter_without_a_row_is_named():
  with pytest.raises(EagleError, match=r"sharding: .*vision/new/thing"):
    rules.specs({"vision/new/thing": (3,)}, MESH)


@pytest.mark.parametrize(
  ("path", "shape", "held"),
  [("language/head/kernel", (32, 64), 32 * 64 // 8), ("language/final_norm/scale", (32,), 32)],
)
def test_the_share_of_a_device_is_what_the_axes_leave(path, shape, held):
  assert rules.share(shape, rules.specs({path: shape}, MESH)[path], MESH) == held


def test_what_is_to_be_whole_is_whole_whatever_the_table_says():
  expert, head = "vision/clip/blocks/mlp/fc1/kernel", "language/head/kernel"
  shapes = {expert: (3, 32, 64), head: (32, 64)}
  found = rules.specs(shapes, MESH, ("vision/.*",))
  assert found[expert] == PartitionSpec(None, None, None)
  assert found[head] == rules.specs(shapes, MESH)[head]
  # Not only what the table knows.
  assert rules.specs({"new/thing": (8,)}, MESH, ("new/.*",)) == {"new/thing": PartitionSpec(None)}


@pytest.mark.parametrize(
  ("pattern", "message"),
  [
    ("vision/clp/.*", r"'vision/clp/\.\*' matches .* did you mean 'vision/clip'\?"),
    ("language", r"matches the whole path of no parameter, did you mean 'language/head'"),
    ("vision/(", r"'vision/\(' is no regular expression: missing \)"),
  ],
)
def test_a_pattern_that_holds_nothing_whole_is_an_error(pattern, message):
  shapes = {"vision/clip/blocks/mlp/fc1/kernel": (3, 32, 64), "language/head/kernel": (32, 64)}
  with pytest.raises(EagleError, match=f"mesh.whole: .*{message}"):
    rules.specs(shapes, MESH, ("vision/.*", pattern))


def test_the_axes_of_a_stack_have_no_logical_name():
  path = "language/layers/mlp/up/kernel"
  assert rules.logical_axes({path: (3, 32, 64)}) == {path: (None, "width", "mlp")}
