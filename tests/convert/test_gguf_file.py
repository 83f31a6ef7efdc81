"""GGUF files: dequantised as their package does it, and refused where they are damaged."""

import struct
import sys

import numpy as np
import pytest

from eagle_jax.convert.gguf_file import GgufSource
from eagle_jax.convert.source import Accompanied, SafetensorsSource
from eagle_jax.errors import EagleError
from tests.convert import gguf_files
from tests.convert.gguf_files import gguf

KINDS = {
  "plain": gguf_files.F32,
  "half": gguf_files.F16,
  "brain": gguf_files.BF16,
  "eight": gguf_files.Q8_0,
  "four": gguf_files.Q4_1,
}
ROUNDING = {"plain": 0, "half": 2**-11, "brain": 2**-8, "eight": 1 / 127, "four": 1 / 7}
"""Largest error of a type, relative to the largest number of a block."""


def tensors():
  rng = np.random.default_rng(0)
  made = {name: rng.uniform(-1, 1, size=(3, 64)).astype(np.float32) for name in KINDS}
  return made | {"vector": rng.normal(size=5).astype(np.float32)}


@pytest.fixture
def file(tmp_path):
  return gguf_files.save(tmp_path / "x.gguf", tensors(), kinds=KINDS, facts={"llama.x": 3})


def test_tensors_come_as_float32_in_the_order_of_pytorch(file):
  source = GgufSource(file)
  entries = source.entries()
  assert list(entries) == list(tensors())
  for name, array in tensors().items():
    got = source.read(name)
    assert (entries[name].shape, entries[name].dtype) == (got.shape, got.dtype)
    assert got.shape == array.shape
    np.testing.assert_allclose(got, array, rtol=0, atol=ROUNDING.get(name, 0))
    if name in KINDS:
      packed = gguf.quantize(array, KINDS[name])
      np.testing.assert_array_equal(got, gguf.dequantize(packed, KINDS[name]))


def test_metadata_come_with_it(file):
  source = GgufSource(file)
  assert source.metadata["llama.x"] == 3
  assert source.description == str(file)
  assert source.companions() == {}


def test_only_files_that_hold_more_than_tensors_are_accompanied(file):
  assert isinstance(GgufSource(file), Accompanied)
  assert not issubclass(SafetensorsSource, Accompanied)


def test_a_missing_file_or_package_is_told(file, tmp_path, monkeypatch):
  with pytest.raises(EagleError, match="no checkpoint at"):
    GgufSource(tmp_path)
  monkeypatch.setitem(sys.modules, "gguf", None)
  with pytest.raises(EagleError, match=r"pip install 'eagle-jax\[gguf\]'"):
    GgufSource(file)


def test_a_file_cut_off_anywhere_is_told(file, tmp_path):
  raw = file.read_bytes()
  for length in (*range(0, len(raw) - 32, 7), len(raw) - 32):
    (tmp_path / "cut.gguf").write_bytes(raw[:length])
    with pytest.raises(EagleError, match=r"cut\.gguf"):
      GgufSource(tmp_path / "cut.gguf")


def test_bytes_that_belong_to_no_tensor_are_told(file):
  with file.open("ab") as more:
    more.write(bytes(64))
  with pytest.raises(EagleError, match="its tensors end at byte"):
    GgufSource(file)


def test_a_file_that_shrinks_is_told(file):
  source = GgufSource(file)
  file.write_bytes(file.read_bytes()[:300])
  with pytest.raises(EagleError, match="has changed since it was opened"):
    source.read("vector")


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    # name, axes, lengths, type, offset
    (("plain", 2, 64, 3, 0, 0), ("plain", 2, 64, 3, 999, 0), "'plain' has elements of type 999"),
    (("plain", 2, 64, 3, 0, 0), ("plain", 2, 64, 3, 24, 0), "'plain' is I8, which cannot be read"),
    (("plain", 2, 64, 3, 0, 0), ("plain", 2, 65, 3, 8, 0), "whole Q8_0 blocks of 32 .*, 65"),
    (("plain", 2, 64, 3, 0, 0), ("plain", 2, 64, 3, 0, 32), "'plain' begins at byte"),
    (("plain", 2, 64, 3, 0, 0), ("plain", 2, 64, 2**62, 0, 0), "'half' begins at byte"),
    (("half", 2, 64, 3, 1, 768), ("half", 2, 64, 3, 1, 0), "begins at byte"),
    (("half", 2, 64, 3, 1, 768), ("half", 2, 64, 3, 1, 2**64 - 64), "begins at byte"),
  ],
)
def test_a_header_that_contradicts_itself_is_told(file, old, new, message):
  pack = lambda name, *rest: name.encode() + struct.pack("<IQQIQ", *rest)
  raw = file.read_bytes()
  assert raw.count(pack(*old)) == 1
  file.write_bytes(raw.replace(pack(*old), pack(*new)))
  with pytest.raises(EagleError, match=message):
    GgufSource(file)


def test_damaged_scales_are_numbers_all_the_same(file):
  start = file.read_bytes().index(gguf.quantize(tensors()["eight"], gguf_files.Q8_0).tobytes())
  with file.open("r+b") as raw:
    raw.seek(start)
    raw.write(b"\x00\x7c")  # infinity in float16
  got = GgufSource(file).read("eight")
  assert not np.isfinite(got[0, :32]).any()
  assert np.isfinite(got[1:]).all()
