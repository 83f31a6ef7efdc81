"""A stage as shapes."""

import math

import jax
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.plan import abstract
from tests.plan import cases


def test_every_leaf_is_a_shape_with_a_sharding():
  stage = abstract.stage(cases.experiment(), jax.devices())
  leaves = jax.tree.leaves((stage.state, stage.batch))
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding for leaf in leaves)
  assert stage.batch.tokens.shape == (8, 32)
  assert stage.batch.images.shape == (8, 1, 64, 64, 3)
  assert stage.batch.segments is None


def test_packed_rows_share_slots():
  packed = ("--config.data.pack=true", "--config.data.share=2", "--config.batch_size=16")
  stage = abstract.stage(cases.experiment("finetune", *packed), jax.devices())
  assert stage.batch.images.shape[0] == 8
  assert stage.batch.segments.shape == (16, 32)


def test_what_is_held_is_divided_by_the_axes_that_divide_it():
  experiment = cases.experiment("prealign,expert=clip")
  whole = abstract.held(abstract.stage(experiment, jax.devices()[:1]))
  stage = abstract.stage(experiment, jax.devices())
  each = abstract.held(stage)
  counts = {
    name: sum(math.prod(leaf.shape) for leaf in part.values()) * 4
    for name, part in (("trained", stage.state.trained), ("frozen", stage.state.frozen))
  }
  assert whole["trained parameters"] == counts["trained"]
  assert whole["frozen parameters"] == counts["frozen"]
  assert whole["optimizer"] == 2 * counts["trained"] + 2 * 4  # two moments, two counters
  assert each["batch"] == whole["batch"] // 8
  assert counts["frozen"] / 8 < each["frozen parameters"] < counts["frozen"] / 7


def test_frozen_experts_held_whole_cost_each_device_their_bytes():
  spread, whole = (
    abstract.stage(cases.experiment("pretrain", *overrides), jax.devices())
    for overrides in ((), ("--config.mesh.whole=vision/.*",))
  )
  more = sum(
    2 * (math.prod(shape) - math.prod(spread.state.frozen[path].sharding.shard_shape(shape)))
    for path, shape in spread.shapes.items()
    if path.startswith("vision/")
  )
  held = [abstract.held(stage) for stage in (spread, whole)]
  assert more > 0
  assert held[1] == {**held[0], "frozen parameters": held[0]["frozen parameters"] + 2 * more}


def test_model_flops_are_those_of_the_sizes():
  stage = abstract.stage(cases.experiment(), jax.devices())
  size, positions = stage.eagle.size.language, 8 * 32
  kernels = sum(
    math.prod(shape)
    for path, shape in stage.shapes.items()
    if "language/" in path and "kernel" in path
  )
  attention = 2 * 32 * size.num_heads * size.head_dim * size.depth  # products with 32 keys, twice
  language = 3 * 2 * positions * (kernels + attention)  # each again for either gradient
  pictures = abstract.model_flops(stage) - language
  assert 0 < pictures < language


def test_rows_that_cannot_be_dealt_out_name_a_mesh_that_can():
  experiment = cases.experiment("finetune", "--config.batch_size=2")
  with pytest.raises(EagleError, match=r"2 rows, 8 shards.*--config.mesh.tensor=4"):
    abstract.stage(experiment, jax.devices())
  half = cases.experiment("finetune", "--config.optimizer.accumulate=2")
  with pytest.raises(EagleError, match=r"8 rows in 2 micro-batches.*--config.mesh.tensor=2"):
    abstract.stage(half, jax.devices())
