"""Checkpoints: what is saved comes back, resharded and cast, and what is missing is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import checkpoint, config
from eagle_jax.errors import EagleError
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


def test_parameters_are_resharded_and_cast_on_the_way_in(tmp_path, mesh):
  folder = str(tmp_path / "params")
  checkpoint.save_params(folder, {"a/b": placed(mesh, "fsdp"), "a/c": placed(mesh)}, {"who": "me"})
  assert checkpoint.stored(folder) == {"a/b": (8, 8), "a/c": (8, 8)}
  other = NamedSharding(mesh, PartitionSpec(None, "data"))
  wanted = {"a/b": jax.ShapeDtypeStruct((8, 8), jnp.bfloat16, sharding=other)}
  got = checkpoint.load_params(folder, wanted)
  assert list(got) == ["a/b"]
  assert got["a/b"].sharding == other
  np.testing.assert_array_equal(np.asarray(got["a/b"], np.float32), placed(mesh))


def test_what_is_missing_or_misshaped_is_named(tmp_path, mesh):
  folder = str(tmp_path / "params")
  checkpoint.save_params(folder, {"a/b": placed(mesh)}, {})
  wanted = {
    "a/b": jax.ShapeDtypeStruct((4, 8), jnp.float32),
    "a/z": jax.ShapeDtypeStruct((2,), jnp.float32),
  }
  with pytest.raises(EagleError, match=r"a/b is \(8, 8\), needed \(4, 8\); a/z is not there"):
    checkpoint.load_params(folder, wanted)


def test_nothing_saved_is_overwritten(tmp_path, mesh):
  folder = str(tmp_path / "params")
  checkpoint.save_params(folder, {"a": placed(mesh)}, {})
  with pytest.raises(EagleError, match="exists already"):
    checkpoint.save_params(folder, {"a": placed(mesh)}, {})


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
  with pytest.raises(EagleError, match="no complete checkpoint"):
    checkpoint.resolve(str(tmp_path))
