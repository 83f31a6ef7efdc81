"""Archives of NumPy: what is read from them, and which are refused."""

import contextlib
import io
import re
import struct
import sys
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_jax.convert import npz_file
from eagle_jax.convert.npz_file import NpzSource
from eagle_jax.convert.source import DTYPES, Entry
from eagle_jax.errors import EagleError


def arrays():
  rng = np.random.default_rng(0)
  return {
    "params/img/kernel": rng.normal(size=(2, 3, 4)).astype(np.float32),
    "params/t": np.array(2.5, np.float32),
    "turned": np.asfortranarray(rng.normal(size=(3, 5))),
    "empty": np.zeros((0, 4), np.float16),
    "row": np.arange(7),
  }


def npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def header(text, body=b"", version=b"\x01\x00"):
  """A .npy file with any header at all."""
  form = "<H" if version == b"\x01\x00" else "<I"
  return b"\x93NUMPY" + version + struct.pack(form, len(text)) + text + body


def facts(descr="'<f4'", turned="False", shape="(1,)"):
  return f"{{'descr': {descr}, 'fortran_order': {turned}, 'shape': {shape}, }}\n".encode()


def write(path, named, **more):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of names that come twice
    with zipfile.ZipFile(path, "w", **more) as archive:
      for name, content in named:
        archive.writestr(name, content)
  return path


def refuse(path, message):
  with pytest.raises(EagleError, match=message) as found:
    NpzSource(path)
  assert str(path) in str(found.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_gives_back_what_was_written(tmp_path, save):
  save(tmp_path / "x.npz", **arrays())
  source = NpzSource(tmp_path / "x.npz")
  assert source.description == str(tmp_path / "x.npz")
  assert list(source.entries()) == list(arrays())
  for name, array in arrays().items():
    assert source.entries()[name] == Entry(array.shape, array.dtype)
    for _ in range(2):
      found = source.read(name)
      assert found.dtype == array.dtype
      assert found.shape == array.shape
      np.testing.assert_array_equal(found, array)


def test_every_dtype_of_a_parameter_is_read(tmp_path):
  held = {name: np.arange(6).reshape(2, 3).astype(dtype) for name, dtype in DTYPES.items()}
  np.savez(tmp_path / "x.npz", **held)
  source = NpzSource(tmp_path / "x.npz")
  for name, array in held.items():
    assert source.read(name).dtype == array.dtype
    np.testing.assert_array_equal(source.read(name), array)


@pytest.mark.parametrize("view", ["V2", ml_dtypes.bfloat16])
def test_two_bytes_without_a_name_are_bfloat16(tmp_path, view):
  """NumPy alone reads bfloat16 back as V2, and so it is saved again."""
  array = np.arange(6).astype(ml_dtypes.bfloat16)
  np.savez(tmp_path / "x.npz", a=array.view(view))
  found = NpzSource(tmp_path / "x.npz").read("a")
  assert found.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(found, array)


def test_the_second_version_of_the_format_is_read(tmp_path):
  array = np.arange(4, dtype=np.float32)
  file = io.BytesIO()
  np.lib.format.write_array(file, array, version=(2, 0))
  source = NpzSource(write(tmp_path / "x.npz", [("a.npy", file.getvalue())]))
  np.testing.assert_array_equal(source.read("a"), array)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (npy(np.array([{"a": 1}], object)), r"dtype '\|O', known are <f8, "),
    (npy(np.zeros(2, ">f4")), "dtype '>f4'"),
    (npy(np.zeros(2, np.complex64)), "dtype '<c8'"),
    (npy(np.array(["text"])), "dtype '<U4'"),
    (npy(np.zeros(2, "V1")), r"dtype '\|V1'"),
    (npy(np.zeros(2, [("a", "f4")])), r"as NumPy writes it .*\[\('a', '<f4'\)\]"),
    (npy(np.zeros(3, np.float32))[:-1], r"shape \[3\] of float32 takes 12 bytes, 11 follow"),
    (npy(np.zeros(3, np.float32)) + b"x", "takes 12 bytes, 13 follow"),
    (header(facts(shape="(2,)"), bytes(4)), "takes 8 bytes, 4 follow"),
    (header(facts(shape="(" + "9" * 18 + ", 99)"), bytes(4)), "too large"),
    (header(facts(shape=f"(0, {2**40}, {2**40})")), "3 axes, too large"),
    (header(facts(shape=f"({'1, ' * 99})"), bytes(4)), "99 axes, too large"),
    (header(facts(shape="(-1,)"), bytes(4)), "as NumPy writes it"),
    (header(facts(shape="(1e9,)"), bytes(4)), "as NumPy writes it"),
    (header(facts(shape="(1,)*9"), bytes(4)), "as NumPy writes it"),
    (header(facts(turned="1"), bytes(4)), "as NumPy writes it"),
    (header(facts(descr="__import__('os')"), bytes(4)), "as NumPy writes it"),
    (header(b"{" * 500, bytes(4)), "as NumPy writes it"),
    (header(facts().rstrip(b"\n") + b" " * 20_000 + b"\n", bytes(4)), "at most 10000 bytes"),
    (header(facts(), bytes(4), b"\x02\x00")[:40], "as NumPy writes it"),
    (header(facts(), bytes(4), b"\x03\x00"), r"is no array: .* b'\\x93NUMPY\\x03\\x00'"),
    (b"\x93NUMPY\x01\x00v", "is no array"),
    (b"\x80\x04N.", "is no array"),
    (b"", "is no array"),
  ],
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path, content, message):
  refuse(write(tmp_path / "x.npz", [("good.npy", npy(np.ones(1))), ("a.npy", content)]), message)


@pytest.mark.parametrize("name", ["a.txt", "folder/", "a", "a\x1b[2J.npy", "a\0.npy"])
def test_entries_of_other_names_are_refused(tmp_path, name):
  path = write(tmp_path / "x.npz", [("a?.npy" if "\0" in name else name, npy(np.ones(1)))])
  path.write_bytes(path.read_bytes().replace(b"a?.npy", b"a\0.npy"))
  refuse(path, "a printable name that ends in .npy")


def test_names_that_come_twice_are_refused(tmp_path):
  refuse(write(tmp_path / "x.npz", [("a.npy", npy(np.ones(1)))] * 2), r"'a\.npy' is there twice")


def test_what_is_no_zip_archive_is_refused(tmp_path):
  path = tmp_path / "x.npz"
  refuse(path, "no checkpoint at")
  for content in (b"", npy(np.ones(3)), b"PK\x03\x04" + bytes(99)):
    path.write_bytes(content)
    refuse(path, "damaged or cut off: File is not a zip file")


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path):
  np.savez(tmp_path / "whole.npz", **arrays())
  whole = (tmp_path / "whole.npz").read_bytes()
  for length in [*range(0, len(whole), 37), len(whole) - 1]:
    (tmp_path / "x.npz").write_bytes(whole[:length])
    refuse(tmp_path / "x.npz", "damaged or cut off")


def test_other_compressions_are_refused(tmp_path):
  path = write(tmp_path / "x.npz", [("a.npy", npy(np.ones(1)))], compression=zipfile.ZIP_BZIP2)
  refuse(path, "is compressed in way 12; NumPy's are 0 .* and 8")


def test_an_array_that_grows_out_of_nothing_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(npz_file, "FREE", 10_000)
  np.savez_compressed(tmp_path / "x.npz", zeros=np.zeros(2400, np.float32))
  assert NpzSource(tmp_path / "x.npz").read("zeros").sum() == 0  # small ones may
  np.savez_compressed(tmp_path / "x.npz", zeros=np.zeros(100_000, np.float32))
  refuse(tmp_path / "x.npz", r"would grow from \d+ to 400128 bytes; .* not over 100 times")


def test_entries_that_share_bytes_are_refused(tmp_path):
  """Or a small file would hold any number of large arrays."""
  whole = npy(np.ones(5000))
  path = write(tmp_path / "x.npz", [(f"{name}.npy", whole[:20_000]) for name in "abcde"])
  raw = bytearray(path.read_bytes())
  for found in re.finditer(b"PK\x01\x02", raw):  # each says that it goes on into the next
    struct.pack_into("<II", raw, found.start() + 20, len(whole), len(whole))
  path.write_bytes(raw)
  # Newer Pythons see it first, and say so in their own words.
  refuse(path, r"'c\.npy' overlaps others: together they are longer|Overlapped entries: 'a\.npy'")


def test_an_encrypted_entry_is_refused(tmp_path):
  path = write(tmp_path / "x.npz", [("a.npy", npy(np.ones(1)))])
  raw = bytearray(path.read_bytes())
  for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
    raw[raw.index(mark) + at] |= 1
  path.write_bytes(raw)
  refuse(path, "'a.npy' is damaged or cut off: .*encrypted")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_told_when_the_array_is_read(tmp_path, save):
  path = tmp_path / "x.npz"
  save(path, a=np.random.default_rng(0).normal(size=5000), b=np.ones(3))
  raw = bytearray(path.read_bytes())
  raw[20_000] ^= 1
  path.write_bytes(raw)
  source = NpzSource(path)
  with pytest.raises(EagleError, match="'a' is damaged or cut off: "):
    source.read("a")
  np.testing.assert_array_equal(source.read("b"), np.ones(3))


def test_a_file_that_shrinks_is_told(tmp_path):
  path = tmp_path / "x.npz"
  np.savez(path, a=np.ones(5000))
  source = NpzSource(path)
  with path.open("r+b") as file:
    file.truncate(500)
  with pytest.raises(EagleError, match="'a' is damaged or cut off"):
    source.read("a")


def opened(path):
  """Reads a file whole, or not at all; the modules that are loaded stay the same."""
  loaded = set(sys.modules)
  with contextlib.suppress(EagleError):
    source = NpzSource(path)
    for name, entry in source.entries().items():
      found = source.read(name)
      assert Entry(found.shape, found.dtype) == entry
  assert set(sys.modules) == loaded


FLIPS = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(FLIPS, st.booleans())
def test_a_changed_file_gives_a_source_or_a_refusal(tmp_path_factory, flips, compressed):
  path = tmp_path_factory.getbasetemp() / "flipped.npz"
  (np.savez_compressed if compressed else np.savez)(path, a=np.ones((2, 3)), b=np.arange(4))
  raw = bytearray(path.read_bytes())
  for at, value in flips:
    raw[at % len(raw)] = value
  path.write_bytes(raw)
  opened(path)


@settings(max_examples=200, deadline=None)
@given(FLIPS)
def test_a_changed_header_gives_a_source_or_a_refusal(tmp_path_factory, flips):
  changed = bytearray(npy(np.ones((2, 3)))[:70])
  for at, value in flips:
    changed[at % len(changed)] = value
  path = tmp_path_factory.getbasetemp() / "flipped.npz"
  opened(write(path, [("a.npy", bytes(changed) + npy(np.ones((2, 3)))[70:])]))
