"""A run's checkpoints: what is saved comes back, with the position in its data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import checkpoint, config
from eagle_jax.sharding.mesh import make_mesh


class Stream:
  """A batch stream that is a counter."""

  def __init__(self):
    self.position = 0

  def get_state(self):
    return {"position": self.position}

  def set_state(self, state):
    self.position = state["position"]


@pytest.fixture
def mesh():
  return make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))


def placed(mesh, *axes):
  sharding = NamedSharding(mesh, PartitionSpec(*axes))
  return jax.device_put(np.arange(64, dtype=np.float32).reshape(8, 8), sharding)


def abstract(array, sharding=None, dtype=None):
  return jax.ShapeDtypeStruct(
    array.shape, dtype or array.dtype, sharding=sharding or array.sharding
  )


def test_a_run_comes_back_with_its_position(tmp_path, mesh):
  params = {"vision/clip/kernel": placed(mesh, "fsdp", "tensor"), "projector/bias": placed(mesh)}
  optimizer = {"mu": placed(mesh, "fsdp"), "step": jnp.int32(7)}
  stream = Stream()
  checkpoints = checkpoint.Checkpoints(str(tmp_path), keep=2)
  for step in (1, 2, 3):
    stream.position = step * 10
    checkpoints.save(step, params=params, optimizer=optimizer, data=stream, meta={"template": "v1"})
  checkpoints.close()

  again = checkpoint.Checkpoints(str(tmp_path), keep=2)
  assert again.latest() == 3
  fresh = Stream()
  got, state = again.restore(
    3,
    params=jax.tree.map(abstract, params),
    optimizer=jax.tree.map(abstract, optimizer),
    data=fresh,
  )
  again.close()
  assert fresh.position == 30
  np.testing.assert_array_equal(got["vision/clip/kernel"], params["vision/clip/kernel"])
  assert got["vision/clip/kernel"].sharding == params["vision/clip/kernel"].sharding
  assert int(state["step"]) == 7
  assert checkpoint.read_meta(str(tmp_path)) == {"template": "v1"}
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
