"""Safetensors folders: split, indexed, read back by our reader and by the reference one."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from eagle_jax.convert import shards
from eagle_jax.convert.engine import Outgoing
from eagle_jax.convert.files import open_source
from eagle_jax.convert.source import Entry


def arrays():
  rng = np.random.default_rng(0)
  return {
    "a": rng.normal(size=(4, 8)).astype(np.float32),
    "b.half": rng.normal(size=(3, 5)).astype(np.float16),
    "c.brain": rng.normal(size=(64,)).astype(ml_dtypes.bfloat16),
    "d.scalar": np.array(2.5, np.float32),
    "e.none": np.zeros((0, 3), np.float32),
  }


def outgoing():
  return [Outgoing(n, Entry(x.shape, x.dtype), lambda x=x: x) for n, x in arrays().items()]


@pytest.mark.parametrize(("limit", "files"), [(10**9, 1), (160, 2), (1, 5)])
def test_what_is_written_is_read(limit, files, tmp_path):
  seen = []
  names = shards.write(tmp_path, outgoing(), max_shard=limit, on_done=seen.append)
  assert seen == [1, 2, 3, 4, 5]
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
  assert len(names) == (1 if files == 1 else files + 1)
  source = open_source(tmp_path)
  assert source.entries() == {n: Entry(x.shape, x.dtype) for n, x in arrays().items()}
  for name, array in arrays().items():
    assert source.read(name).tobytes() == array.tobytes()


def test_the_reference_reader_agrees(tmp_path):
  shards.write(tmp_path, outgoing())
  found = load_file(tmp_path / "model.safetensors")
  assert found.keys() == arrays().keys()
  for name, array in arrays().items():
    np.testing.assert_array_equal(found[name], array)


def test_the_index_tells_the_size_and_the_place_of_all(tmp_path):
  shards.write(tmp_path, outgoing(), max_shard=160)
  index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
  assert index["metadata"]["total_size"] == sum(x.nbytes for x in arrays().values())
  assert set(index["weight_map"]) == set(arrays())
  assert set(index["weight_map"].values()) == {
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
  }


def test_a_file_that_breaks_off_has_no_name(tmp_path):
  def broken():
    raise OSError(28, "No space left on device")

  tensors = [*outgoing()[:2], Outgoing("z", Entry((2,), np.dtype(np.float32)), broken)]
  with pytest.raises(OSError, match="No space"):
    shards.write(tmp_path, tensors)
  assert not (tmp_path / "model.safetensors").exists()
