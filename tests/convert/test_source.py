"""Safetensors files and folders: what is read, and what is refused."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from eagle_jax.convert.source import (
  ArraySource,
  Entry,
  Lazy,
  SafetensorsSource,
  ShardedSource,
)
from eagle_jax.errors import EagleError


def tensors():
  rng = np.random.default_rng(0)
  return {
    "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
    "b": rng.normal(size=(5,)).astype(ml_dtypes.bfloat16),
    "c.half": rng.normal(size=(2, 1, 3)).astype(np.float16),
    "d.ids": np.arange(7, dtype=np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(3.5, np.float32),
  }


def write(path, header, data=b""):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)
  return path


def entry(shape=(1,), dtype="F32", offsets=(0, 4)):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def indexed(folder):
  """Opens a folder by its index."""
  return ShardedSource(folder / "model.safetensors.index.json", ".safetensors", SafetensorsSource)


def test_a_file_gives_back_what_was_written(tmp_path):
  save_file(tensors(), tmp_path / "x.safetensors", metadata={"format": "pt"})
  source = SafetensorsSource(tmp_path / "x.safetensors")
  assert source.entries().keys() == tensors().keys()
  for name, array in tensors().items():
    assert source.entries()[name] == Entry(array.shape, array.dtype)
    read = source.read(name)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_a_folder_is_read_by_its_index_and_never_by_what_lies_in_it(tmp_path):
  all_of = tensors()
  first = {name: all_of.pop(name) for name in ("a.weight", "b")}
  save_file(first, tmp_path / "one.safetensors")
  save_file(all_of, tmp_path / "two.safetensors")
  save_file({"stray": np.zeros(1, np.float32)}, tmp_path / "stray.safetensors")
  weight_map = dict.fromkeys(first, "one.safetensors") | dict.fromkeys(all_of, "two.safetensors")
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  source = indexed(tmp_path)
  assert source.entries().keys() == tensors().keys()
  np.testing.assert_array_equal(source.read("d.ids"), np.arange(7))


def test_a_missing_checkpoint_is_told(tmp_path):
  for path in (tmp_path / "nowhere", tmp_path):
    with pytest.raises(EagleError, match="no checkpoint"):
      SafetensorsSource(path)


@pytest.mark.parametrize(
  ("weight_map", "message"),
  [
    ({"a": "../out.safetensors"}, "own folder"),
    ({"a": "/etc/passwd"}, "own folder"),
    ({"a": "sub/x.safetensors"}, "own folder"),
    ({"a": "x.bin"}, "own folder"),
    ({"a": 3}, "own folder"),
    ({"a": ["x.safetensors"]}, "own folder"),
    ({"a": "gone.safetensors"}, "not in"),
    ({"a": "x.safetensors", "b": "x.safetensors"}, "do not hold: b"),
    ({"b": "x.safetensors"}, "do not hold: b"),
    ({}, "weight_map"),
    ([], "weight_map"),
  ],
)
def test_an_index_is_held_to_its_folder_and_its_files(tmp_path, weight_map, message):
  folder = tmp_path / "model"
  folder.mkdir()
  save_file({"a": np.ones(1, np.float32)}, folder / "x.safetensors")
  save_file({"a": np.ones(1, np.float32)}, tmp_path / "out.safetensors")
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  with pytest.raises(EagleError, match=message):
    indexed(folder)


def test_an_index_lists_everything_its_files_hold(tmp_path):
  save_file({"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}, tmp_path / "x.safetensors")
  index = json.dumps({"weight_map": {"a": "x.safetensors"}})
  (tmp_path / "model.safetensors.index.json").write_text(index)
  with pytest.raises(EagleError, match=r"does not list .*: b"):
    indexed(tmp_path)


@pytest.mark.parametrize(
  ("header", "data", "message"),
  [
    ({"a": entry()}, b"123", "file at"),
    ({"a": entry()}, b"12345", "file at"),
    ({"a": entry(offsets=(0, 8))}, b"12345678", "takes 4 bytes"),
    ({"a": entry(), "b": entry()}, b"1234", "begins at byte"),
    ({"a": entry(offsets=(4, 8))}, b"12345678", "begins at byte"),
    ({"a": entry(dtype="F8_E4M3")}, b"1234", "dtype 'F8_E4M3'"),
    ({"a": entry(shape=(-1,))}, b"1234", "shape"),
    ({"a": entry(shape=(True,))}, b"1234", "shape"),
    ({"a": {**entry(), "shape": None}}, b"1234", "shape"),
    ({"a": entry(offsets=(0, 4, 8))}, b"1234", "data_offsets"),
    ({"a": {"dtype": "F32"}}, b"", "must give"),
    ({"a": 3}, b"", "must give"),
    (b"[1, 2]", b"", "JSON object"),
    (b"{nonsense", b"", "not readable"),
    (b'{"a": 1, "a": 2}', b"", "given twice"),
    (b"\xff\xfe\xff\xff", b"", "not readable"),
    (b"[" * 100000, b"", "not readable"),
  ],
)
def test_a_damaged_header_is_refused(tmp_path, header, data, message):
  path = write(tmp_path / "x.safetensors", header, data)
  with pytest.raises(EagleError, match=message):
    SafetensorsSource(path)


@pytest.mark.parametrize("start", [b"", b"\x01\x02", b"\xff" * 8, struct.pack("<Q", 50) + b"{}"])
def test_what_is_no_safetensors_file_is_refused(tmp_path, start):
  path = tmp_path / "x.safetensors"
  path.write_bytes(start)
  with pytest.raises(EagleError, match="no safetensors file"):
    SafetensorsSource(path)


def test_arrays_may_be_made_when_they_are_read():
  made = []
  lazy = Lazy((2,), np.dtype(np.float32), lambda: made.append(1) or np.ones(2, np.float32))
  source = ArraySource({"now": np.zeros((3, 1), np.float16), "later": lazy})
  assert source.entries()["later"] == Entry((2,), np.dtype(np.float32))
  assert source.entries()["now"] == Entry((3, 1), np.dtype(np.float16))
  assert not made
  np.testing.assert_array_equal(source.read("later"), [1, 1])
