"""What a file or folder is read by: names from a table, nothing found by looking around."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from eagle_jax.convert.files import NAMES, SUFFIXES, open_source
from eagle_jax.convert.gguf_file import GgufSource
from eagle_jax.convert.npz_file import NpzSource
from eagle_jax.convert.source import SafetensorsSource, ShardedSource
from eagle_jax.convert.torch_file import TorchSource
from eagle_jax.errors import EagleError
from tests.convert import torch_zip


def array(value):
  return np.full((2, 3), value, np.float32)


def write(path, value=1.0, name="a"):
  """Writes one tensor, in the format of the file's name."""
  if path.suffix == ".safetensors":
    save_file({name: array(value)}, path)
  elif path.suffix == ".npz":
    np.savez(path, **{name: array(value)})
  else:
    torch_zip.save({name: torch_zip.whole(array(value))}, path)
  return path


def index(path, weight_map):
  path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("suffix", sorted(set(SUFFIXES) - {".gguf"}))
def test_a_file_is_read_by_its_suffix(tmp_path, suffix):
  source = open_source(write(tmp_path / f"weights{suffix}", 2))
  others = {".safetensors": SafetensorsSource, ".npz": NpzSource}
  assert isinstance(source, others.get(suffix, TorchSource))
  np.testing.assert_array_equal(source.read("a"), array(2))


def test_gguf_is_read_by_its_suffix(tmp_path):
  from tests.convert import gguf_files

  source = open_source(gguf_files.save(tmp_path / "weights.gguf", {"a": array(2)}))
  assert isinstance(source, GgufSource)
  np.testing.assert_array_equal(source.read("a"), array(2))


def test_a_folder_is_read_by_the_first_name_of_the_table(tmp_path):
  write(tmp_path / "one.safetensors", 1)
  write(tmp_path / "two.bin", 2)
  write(tmp_path / "model.safetensors", 3)
  write(tmp_path / "pytorch_model.bin", 4)
  write(tmp_path / "stray.safetensors", 5)
  index(tmp_path / "model.safetensors.index.json", {"a": "one.safetensors"})
  index(tmp_path / "pytorch_model.bin.index.json", {"a": "two.bin"})
  for name, value in zip(NAMES, (1, 3, 2, 4), strict=True):
    np.testing.assert_array_equal(open_source(tmp_path).read("a"), array(value))
    np.testing.assert_array_equal(open_source(tmp_path / name).read("a"), array(value))
    (tmp_path / name).unlink()
  with pytest.raises(EagleError, match=r"must hold one of model\.safetensors\.index\.json"):
    open_source(tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_of_both_kinds_are_read_through_their_index(tmp_path, suffix):
  write(tmp_path / f"one{suffix}", 1, "a")
  write(tmp_path / f"two{suffix}", 2, "b")
  stem = "model" if suffix == ".safetensors" else "pytorch_model"
  index(tmp_path / f"{stem}{suffix}.index.json", {"b": f"two{suffix}", "a": f"one{suffix}"})
  source = open_source(tmp_path)
  assert isinstance(source, ShardedSource)
  assert list(source.entries()) == ["b", "a"]
  np.testing.assert_array_equal(source.read("a"), array(1))
  np.testing.assert_array_equal(source.read("b"), array(2))


def test_an_index_of_one_kind_names_no_file_of_another(tmp_path):
  write(tmp_path / "one.safetensors")
  index(tmp_path / "pytorch_model.bin.index.json", {"a": "one.safetensors"})
  with pytest.raises(EagleError, match=r"only name \.bin files in its own folder"):
    open_source(tmp_path)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    (
      "weights.safetensor",
      r"ends in '\.safetensor', did you mean '\.safetensors'\? Known: \.safetensors, \.bin",
    ),
    ("weights.gz", r"ends in '\.gz'"),
    ("weights", r"ends in '', not known\. Known: "),
  ],
)
def test_another_suffix_is_told_the_known_ones(tmp_path, name, message):
  (tmp_path / name).write_bytes(b"x")
  with pytest.raises(EagleError, match=message):
    open_source(tmp_path / name)


def test_a_missing_file_is_told(tmp_path):
  with pytest.raises(EagleError, match="neither a file nor a folder"):
    open_source(tmp_path / "gone.bin")
