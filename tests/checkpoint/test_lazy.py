"""Parameters read a slice at a time, from both ways in which Orbax lays them down."""

import ml_dtypes
import numpy as np
import pytest

from eagle_jax import checkpoint
from eagle_jax.errors import EagleError
from eagle_jax.types import Layout


def arrays():
  rng = np.random.default_rng(0)
  return {
    "a/stack": rng.normal(size=(3, 8, 4)).astype(ml_dtypes.bfloat16),
    "a/b/whole": rng.normal(size=(8, 6)).astype(np.float32),
  }


def streamed(made):
  """Writes the arrays slice by slice, transposed on disk."""
  depths = {"a/stack": 1, "a/b/whole": 0}
  layouts = {
    path: Layout(array.shape, array.dtype, depths[path], "F") for path, array in arrays().items()
  }
  writer = checkpoint.Writer(made, layouts, identity="x")
  for path, array in arrays().items():
    for index in np.ndindex(*array.shape[: depths[path]]):
      writer.put(path, index, array[index])
  writer.finish({}, {})


@pytest.mark.parametrize(
  "save", [streamed, lambda made: checkpoint.save_params(str(made), arrays(), {})]
)
def test_shapes_are_known_and_slices_are_read(save, tmp_path):
  save(tmp_path / "made")
  got = checkpoint.open_params(str(tmp_path / "made"))
  assert got.keys() == arrays().keys()
  for path, array in arrays().items():
    assert got[path].shape == array.shape
    assert got[path].dtype == array.dtype
    np.testing.assert_array_equal(np.asarray(got[path]), array)
    np.testing.assert_array_equal(got[path][1,], array[1])
  np.testing.assert_array_equal(
    np.asarray(got["a/stack"], np.float32), arrays()["a/stack"].astype(np.float32)
  )


def test_a_missing_file_is_named(tmp_path):
  streamed(tmp_path / "made")
  (tmp_path / "made" / "params" / "a.b.whole" / "0.0").unlink()
  with pytest.raises(EagleError, match=r"a\.b\.whole/0\.0 is missing"):
    checkpoint.open_params(str(tmp_path / "made"))
