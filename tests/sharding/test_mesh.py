"""Meshes and the placing of batches."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.sharding import mesh as meshes
from eagle_jax.types import Batch


def batch_of(rows):
  tokens = np.arange(rows * 4, dtype=np.int32).reshape(rows, 4)
  images = np.zeros((rows, 1, 2, 2, 3), np.uint8)
  return Batch(
    images=images, tokens=tokens, valid=tokens >= 0, loss_mask=tokens > 1, positions=tokens
  )


def test_minus_one_takes_the_rest_and_every_axis_is_auto():
  mesh = meshes.make_mesh(config.Mesh(data=2, fsdp=-1, tensor=2))
  assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2, "sequence": 1}
  assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize("sizes", [config.Mesh(fsdp=3), config.Mesh(data=3, fsdp=-1)])
def test_axes_that_do_not_multiply_to_the_devices_are_refused(sizes):
  with pytest.raises(EagleError, match="must multiply to the device count"):
    meshes.make_mesh(sizes)


def test_rows_are_dealt_over_data_and_fsdp():
  mesh = meshes.make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
  placed = meshes.place_batch(batch_of(8), mesh)
  assert placed.tokens.sharding.spec == PartitionSpec(("data", "fsdp"))
  assert {shard.data.shape for shard in placed.tokens.addressable_shards} == {(2, 4)}
  np.testing.assert_array_equal(placed.tokens, batch_of(8).tokens)


def test_rows_that_cannot_be_dealt_out_are_refused():
  mesh = meshes.make_mesh(config.Mesh(data=2, fsdp=4))
  with pytest.raises(EagleError, match="6 rows, 8 shards"):
    meshes.place_batch(batch_of(6), mesh)


def test_slots_are_dealt_with_the_rows_that_share_them():
  mesh = meshes.make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
  whole = dataclasses.replace(batch_of(8), images=batch_of(4).images)
  placed = meshes.place_batch(whole, mesh)
  assert {shard.data.shape[0] for shard in placed.images.addressable_shards} == {1}
  assert placed.segments is None
  with pytest.raises(EagleError, match="2 groups, 4 shards"):
    meshes.place_batch(dataclasses.replace(whole, images=batch_of(2).images), mesh)


def test_fewer_devices_can_be_named():
  assert meshes.make_mesh(config.Mesh(), jax.devices()[:2]).shape["fsdp"] == 2


def test_slices_follow_each_other_along_data_and_must_divide_it():
  class Device:
    """A device of one of two slices, as a TPU's names itself."""

    platform = device_kind = "cpu"
    process_index = 0

    def __init__(self, number):
      self.id, self.slice_index = number, number // 4

  devices = [Device(number) for number in range(8)]
  mesh = meshes.make_mesh(config.Mesh(data=2, fsdp=4), devices)
  assert [[d.slice_index for d in row.flat] for row in mesh.devices] == [[0] * 4, [1] * 4]
  with pytest.raises(EagleError, match=r"multiple of the slices: 1 and 2 slices"):
    meshes.make_mesh(config.Mesh(data=1, fsdp=8), devices)


class Chip:
  """A chip of a torus of 4 x 4 x 4, four to a process, as a TPU's names itself."""

  platform, device_kind, core_on_chip, slice_index = "tpu", "TPU v4", 0, 0

  def __init__(self, number):
    self.id, self.coords = number, (number % 4, number // 4 % 4, number // 16)
    x, y, z = self.coords
    self.process_index = x // 2 + 2 * (y // 2) + 4 * z


@pytest.mark.parametrize("sizes", [(1, 64, 1), (2, 32, 1), (1, 32, 2), (4, 8, 2), (1, 8, 8)])
def test_an_axis_may_take_part_of_a_side_of_a_torus(monkeypatch, sizes):
  data, fsdp, tensor = sizes
  monkeypatch.setattr(jax, "process_index", lambda: 0)
  chips = [Chip(number) for number in range(64)]
  mesh = meshes.make_mesh(config.Mesh(data=data, fsdp=fsdp, tensor=tensor), chips)
  assert mesh.devices.shape == (*sizes, 1)
  assert {chip.id for chip in mesh.devices.flat} == set(range(64))
  share, count = meshes.readers(mesh)
  assert share == 0
  assert data * fsdp % count == 0


class Device:
  """A device of one of several processes, of four each."""

  def __init__(self, number):
    self.process_index = number // 4


@pytest.mark.parametrize(
  ("shape", "count", "shares"),
  [
    ((2, 4, 1, 1), 8, [0, 1]),
    ((1, 2, 4, 1), 8, [0, 1]),
    ((1, 1, 8, 1), 8, [0, 0]),
    ((1, 2, 4, 2), 16, [0, 0, 1, 1]),
  ],
)
def test_processes_that_hold_the_same_rows_read_the_same(monkeypatch, shape, count, shares):
  devices = np.array([Device(number) for number in range(count)]).reshape(shape)
  mesh = jax.sharding.Mesh(devices, meshes.AXES)
  for process, share in enumerate(shares):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    assert meshes.readers(mesh) == (share, len(set(shares)))


def test_processes_that_hold_some_rows_of_others_are_refused():
  devices = np.array([Device(number) for number in range(12)]).reshape((1, 2, 6, 1))
  with pytest.raises(EagleError, match=r"shares \[0\], \[0, 1\], \[1\] of 2: .*tensor=6"):
    meshes.readers(jax.sharding.Mesh(devices, meshes.AXES))
