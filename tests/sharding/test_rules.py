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


def test_bytes_per_device_counts_the_shards():
  shapes = {"language/head/kernel": (32, 64), "language/final_norm/scale": (32,)}
  assert rules.bytes_per_device(shapes, MESH, 4) == 32 * 64 * 4 // 8 + 32 * 4


def test_the_axes_of_a_stack_have_no_logical_name():
  path = "language/layers/mlp/up/kernel"
  assert rules.logical_axes({path: (3, 32, 64)}) == {path: (None, "width", "mlp")}
