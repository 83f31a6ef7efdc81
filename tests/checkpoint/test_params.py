"""Parameters alone: they come back resharded and cast, and what is missing is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import checkpoint
from eagle_jax.errors import EagleError


def test_parameters_are_resharded_and_cast_on_the_way_in(tmp_path, mesh, placed):
  folder = str(tmp_path / "params")
  checkpoint.save_params(folder, {"a/b": placed("fsdp"), "a/c": placed()}, {"who": "me"})
  assert checkpoint.stored(folder) == {"a/b": (8, 8), "a/c": (8, 8)}
  other = NamedSharding(mesh, PartitionSpec(None, "data"))
  wanted = {"a/b": jax.ShapeDtypeStruct((8, 8), jnp.bfloat16, sharding=other)}
  got = checkpoint.load_params(folder, wanted)
  assert list(got) == ["a/b"]
  assert got["a/b"].sharding == other
  np.testing.assert_array_equal(np.asarray(got["a/b"], np.float32), placed())


def test_what_is_missing_or_misshaped_is_named(tmp_path, placed):
  folder = str(tmp_path / "params")
  checkpoint.save_params(folder, {"a/b": placed()}, {})
  wanted = {
    "a/b": jax.ShapeDtypeStruct((4, 8), jnp.float32),
    "a/z": jax.ShapeDtypeStruct((2,), jnp.float32),
  }
  with pytest.raises(EagleError, match=r"a/b is \(8, 8\), needed \(4, 8\); a/z is not there"):
    checkpoint.load_params(folder, wanted)


def test_nothing_saved_is_overwritten(tmp_path, placed):
  folder = str(tmp_path / "params")
  checkpoint.save_params(folder, {"a": placed()}, {})
  with pytest.raises(EagleError, match="exists already"):
    checkpoint.save_params(folder, {"a": placed()}, {})


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
  with pytest.raises(EagleError, match="no complete checkpoint"):
    checkpoint.resolve(str(tmp_path))
