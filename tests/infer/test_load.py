"""A checkpoint as the parameters that answering takes."""

import jax
import numpy as np
import pytest

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.infer import load
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.model import weights
from eagle_jax.sharding.mesh import make_mesh

MODEL = config.Model(
  experts=("clip@demo",), language="demo", image_size=64, grid_side=2, dtype="bfloat16"
)


@pytest.fixture
def eagle():
  return eagle_lib.build(MODEL)


def drawn(eagle):
  """Random parameters by path."""
  rng = np.random.default_rng(0)
  leaves = engine.flatten(eagle_lib.abstract_params(eagle))
  return {path: rng.normal(0, 0.1, leaf.shape).astype(np.float32) for path, leaf in leaves.items()}


@pytest.mark.parametrize(("devices", "whole"), [(1, ()), (8, ()), (8, ("vision/.*",))])
def test_parameters_come_back_in_the_models_dtype_over_any_devices(tmp_path, eagle, devices, whole):
  saved = drawn(eagle)
  checkpoint.save_params(str(tmp_path / "saved"), saved, {})
  mesh = make_mesh(config.Mesh(), jax.devices()[:devices])
  loaded = engine.flatten(load.params(str(tmp_path / "saved"), eagle, mesh, whole=whole))
  assert loaded.keys() == saved.keys()
  for path, array in saved.items():
    np.testing.assert_array_equal(loaded[path], array.astype(eagle.dtype), err_msg=path)
    assert len(loaded[path].sharding.device_set) == devices
  spread = {path.split("/")[0] for path, array in loaded.items() if not array.is_fully_replicated}
  assert ("vision" in spread, "language" in spread) == (devices > 1 and not whole, devices > 1)


def test_foreign_files_give_the_same_parameters(eagle):
  saved = drawn(eagle)
  table = weights.table(eagle.size)
  source = ArraySource(dict(engine.export(table, saved)))
  plan = engine.plan(source, table, eagle_lib.abstract_params(eagle))
  loaded = engine.flatten(load.foreign(plan, source, eagle, mesh=make_mesh(config.Mesh())))
  assert loaded.keys() == saved.keys()
  for path, array in saved.items():
    np.testing.assert_array_equal(loaded[path], array.astype(eagle.dtype), err_msg=path)


def test_what_the_checkpoint_lacks_is_named(tmp_path, eagle):
  saved = drawn(eagle)
  saved.pop("language/head/kernel")
  checkpoint.save_params(str(tmp_path / "saved"), saved, {})
  with pytest.raises(EagleError, match="language/head/kernel is not there"):
    load.params(str(tmp_path / "saved"), eagle, make_mesh(config.Mesh()))
