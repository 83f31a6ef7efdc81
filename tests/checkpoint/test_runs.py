"""A run's checkpoints: what is saved comes back, with the position in its data."""

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax import checkpoint


class Stream:
  """A batch stream that is a counter."""

  def __init__(self):
    self.position = 0

  def get_state(self):
    return {"position": self.position}

  def set_state(self, state):
    self.position = state["position"]


def abstract(array, sharding=None, dtype=None):
  return jax.ShapeDtypeStruct(
    array.shape, dtype or array.dtype, sharding=sharding or array.sharding
  )


def test_a_run_comes_back_with_its_position(tmp_path, placed):
  params = {"vision/clip/kernel": placed("fsdp", "tensor"), "projector/bias": placed()}
  optimizer = {"mu": placed("fsdp"), "step": jnp.int32(7)}
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
  folder = tmp_path / "checkpoints"
  assert sorted(p.name for p in folder.iterdir()) == ["2", "3"]
  assert all(checkpoint.is_checkpoint(str(p)) for p in (tmp_path, folder, folder / "3"))
  assert not checkpoint.is_checkpoint(str(folder / "3" / "params"))
