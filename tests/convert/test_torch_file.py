"""Files of PyTorch: what is read from them, and which archives are refused."""

import collections
import contextlib
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_jax.convert import torch_file
from eagle_jax.convert.source import Entry
from eagle_jax.convert.torch_file import TorchSource
from eagle_jax.errors import EagleError
from tests.convert.torch_zip import View, archived, entries, save, whole

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def array(shape=(3, 4), dtype="float32"):
  return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def state():
  return {"a.weight": whole(array()), "b": whole(array((2,), ml_dtypes.bfloat16))}


def refuse(path, message):
  with pytest.raises(EagleError, match=message) as found:
    TorchSource(path)
  assert str(path) in str(found.value)


def write(path, named, **more):
  path.write_bytes(archived(named, **more))
  return path


def patched(tmp_path, name, content):
  """A file with one entry replaced, added, or left out where the content is None."""
  named = dict(entries(state())) | {name: content}
  return write(tmp_path / "x.bin", [(n, raw) for n, raw in named.items() if raw is not None])


def test_a_file_gives_back_what_was_written(tmp_path):
  arrays = {dtype: array(dtype=dtype) for dtype in DTYPES}
  arrays |= {"half": array((5,), ml_dtypes.bfloat16), "scalar": np.float32(2.5)}
  arrays["empty"] = np.zeros((0, 4), np.float32)
  path = save({name: whole(a) for name, a in arrays.items()}, tmp_path / "x.pth")
  source = TorchSource(path)
  assert list(source.entries()) == list(arrays)
  for name, expected in arrays.items():
    assert source.entries()[name] == Entry(expected.shape, expected.dtype)
    found = source.read(name)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found * found.dtype.type(1), expected)


def test_views_are_read_in_their_own_order(tmp_path):
  flat = np.arange(24, dtype=np.int32)
  views = {
    "whole": View(flat, (4, 6), (6, 1)),
    "transposed": View(flat, (6, 4), (1, 6)),
    "part": View(flat, (2, 3), (6, 1), 7),
    "column": View(flat, (4,), (6,), 5),
    "repeated": View(flat, (3, 2), (0, 1), 4),
    "any step for one": View(flat, (1, 2), (2**62, 3), 20),
  }
  for view in views.values():
    view.key = "shared"
  source = TorchSource(save(views, tmp_path / "x.bin"))
  grid = flat.reshape(4, 6)
  expected = [grid, grid.T, grid[1:3, 1:4], grid[:, 5], [[4, 5]] * 3, [[20, 23]]]
  for name, values in zip(views, expected, strict=True):
    np.testing.assert_array_equal(source.read(name), values)
    assert not source.read(name).flags.writeable


def test_bytes_begin_where_the_header_before_them_ends(tmp_path):
  path = tmp_path / "x.bin"
  with zipfile.ZipFile(path, "w") as archive:
    for name, raw in entries(state()):
      # The field for large sizes then stands in this header, and not in the directory.
      with archive.open(name, "w", force_zip64=True) as entry:
        entry.write(raw)
  np.testing.assert_array_equal(TorchSource(path).read("a.weight"), array())


def test_parameters_and_ordered_dictionaries_are_read(tmp_path):
  ordered = collections.OrderedDict(b=whole(array(), parameter=True), a=whole(array((2,))))
  source = TorchSource(save(ordered, tmp_path / "x.pt"))
  assert list(source.entries()) == ["b", "a"]
  np.testing.assert_array_equal(source.read("b"), array())


@pytest.mark.parametrize("container", torch_file.CONTAINERS)
def test_a_training_checkpoint_is_read_by_its_container(tmp_path, container):
  rest = {"epoch": 3, "args": {"lr": 0.1, "betas": (0.9, 0.99), "tags": ["x", None, True]}}
  optimizer = {"state": {0: {"exp_avg": whole(array((7,)))}}}
  path = save({**rest, "optimizer": optimizer, container: state()}, tmp_path / "x.pth")
  assert TorchSource(path).entries().keys() == state().keys()


def test_the_first_container_counts_unless_others_are_asked_for(tmp_path):
  nested = {"model": {"m": whole(array())}, "ema_state": {"e": whole(array())}, "module": None}
  path = save(nested, tmp_path / "x.pth")
  assert list(TorchSource(path).entries()) == ["e"]
  assert list(TorchSource(path, ("module", "model")).entries()) == ["m"]
  refuse(save({"teacher": state()}, path), "there are some under 'teacher'")
  assert TorchSource(path, ("teacher",)).entries().keys() == state().keys()


@pytest.mark.parametrize(
  ("value", "message"),
  [
    ([whole(array())], "must hold a dictionary of tensors, it holds a list"),
    (whole(array()), "it holds a Tensor"),
    ({}, "there are none"),
    ({"epoch": 3, "args": {"lr": 0.1}}, "there are none"),
    ({"model": {}, "a": whole(array())}, "under 'model' must map names to tensors, there are none"),
    ({"a": whole(array()), "deep": state()}, "some under 'deep'"),
    ({7: whole(array())}, "printable name, not '7'"),
    ({"a\x1b[2J": whole(array())}, "printable name"),
  ],
)
def test_what_names_no_tensors_is_refused(tmp_path, value, message):
  refuse(save(value, tmp_path / "x.bin"), message)


def test_other_formats_are_told_by_name(tmp_path):
  path = tmp_path / "x.bin"
  path.write_bytes(pickle.dumps({"a": 1}, 2))
  refuse(path, r"a bare pickle, which is how PyTorch saved before version 1\.6")
  with tarfile.open(path, "w") as archive:
    archive.add(__file__, "storages")
  refuse(path, "a tar archive")
  for content in (b"", b"PK\x05\x06" + bytes(18), b'{"a": 1}', b"\x1f\x8b" + bytes(600)):
    path.write_bytes(content)
    refuse(path, "it is no zip archive")
  refuse(tmp_path / "gone.bin", "no checkpoint at")


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path):
  whole_file = archived(entries(state()))
  for length in [*range(0, len(whole_file), 37), len(whole_file) - 1]:
    (tmp_path / "x.bin").write_bytes(whole_file[:length])
    refuse(tmp_path / "x.bin", "cut off|no zip archive")


def test_compressed_entries_are_refused(tmp_path):
  path = write(tmp_path / "x.bin", entries(state()), compression=zipfile.ZIP_DEFLATED)
  refuse(path, r"'archive/data\.pkl' is compressed")


@pytest.mark.parametrize("again", ["archive/data.pkl", "archive/data/0"])
def test_entries_of_one_name_are_refused(tmp_path, again):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    path = write(tmp_path / "x.bin", [*entries(state()), (again, b"\x80\x02}.")])
  refuse(path, f"zip entry '{again}' is there twice")


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("archive/data.pkl", None, "must hold one data.pkl, it holds 0"),
    ("other/data.pkl", b"\x80\x02}.", "it holds 2"),
    ("data.pkl", b"\x80\x02}.", "it holds 2"),
    ("archive/deep/data.pkl", b"\x80\x02}.", "it holds 2"),
    ("archive/byteorder", b"big", "little-endian, byteorder is b'big'"),
    ("archive/byteorder", b"", "little-endian"),
    ("archive/data/0", None, "holds no storage '0'"),
    ("archive/data/0", b"short", "the file holds 5"),
    ("archive/data/0", bytes(100), "the file holds 100"),
    ("archive/data.pkl", b"", "refused at byte 0"),
    ("archive/data.pkl", bytes(torch_file.MAX_PICKLE + 1), "at most 16777216 are read"),
  ],
)
def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path, name, content, message):
  refuse(patched(tmp_path, name, content), message)


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "archive/.data/id", "archive/x\0y"])
def test_other_entries_are_left_alone(tmp_path, name):
  (tmp_path / "in").mkdir()
  source = TorchSource(patched(tmp_path / "in", name, b"stray"))
  np.testing.assert_array_equal(source.read("a.weight"), array())
  assert [path.name for path in tmp_path.rglob("*")] == ["in", "x.bin"]


def forged(tmp_path, at, form, value):
  """A file with one number of its zip directory's first entry replaced."""
  raw = bytearray(archived(entries(state())))
  struct.pack_into(form, raw, raw.index(b"PK\x01\x02") + at, value)
  (tmp_path / "x.bin").write_bytes(raw)
  return tmp_path / "x.bin"


@pytest.mark.parametrize(
  ("at", "form", "value", "message"),
  [
    (8, "<H", 1, "is encrypted"),
    (8, "<H", 0x2000, "is encrypted"),
    (10, "<H", 8, "is compressed"),
    (10, "<H", 99, "is compressed"),
    (16, "<I", 0, "damaged: its checksum"),
    (20, "<I", 5, "is compressed"),
    (24, "<I", 5, "is compressed"),
    (6, "<H", 99, "damaged or cut off"),
    (28, "<H", 60000, "does not agree"),
    (30, "<H", 60000, "must hold one|does not agree|damaged"),
    (42, "<I", 1, "does not agree"),
    (42, "<I", 2**31, "does not agree"),
    (42, "<I", 2**32 - 1, "does not agree"),
    (46, "<B", 0x41, "does not agree"),
  ],
)
def test_a_directory_that_lies_is_refused(tmp_path, at, form, value, message):
  refuse(forged(tmp_path, at, form, value), message)


def test_entries_that_overlap_or_reach_into_the_directory_are_refused(tmp_path):
  raw = bytearray(archived(entries(state())))
  for size in (len(raw) // 2, 2**31):
    struct.pack_into("<II", raw, raw.index(b"PK\x01\x02") + 20, size, size)
    (tmp_path / "x.bin").write_bytes(raw)
    refuse(tmp_path / "x.bin", "it must between")


def test_a_directory_that_lies_about_its_own_place_is_refused(tmp_path):
  raw = bytearray(archived(entries(state())))
  for offset in (0, len(raw), 2**32 - 2):
    struct.pack_into("<I", raw, len(raw) - 6, offset)
    (tmp_path / "x.bin").write_bytes(raw)
    refuse(tmp_path / "x.bin", "does not agree|damaged or cut off|it must between")


def test_a_tensor_is_mapped_and_its_neighbours_are_not(tmp_path):
  source = TorchSource(save(state() | {"large": whole(array((100_000,)))}, tmp_path / "x.bin"))
  mapped = source.read("a.weight")
  while not isinstance(mapped, np.memmap):
    mapped = mapped.base
  assert mapped.mode == "r"
  assert mapped.nbytes == array().nbytes


def opened(path):
  """Reads a file whole, or not at all; the modules that are loaded stay the same."""
  loaded = set(sys.modules)
  with contextlib.suppress(EagleError):
    source = TorchSource(path)
    for name, entry in source.entries().items():
      found = source.read(name)
      assert Entry(found.shape, found.dtype) == entry
      found.copy()
  assert set(sys.modules) == loaded


FLIPS = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4)


def flipped(raw, flips):
  """Bytes with some of them replaced."""
  changed = bytearray(raw)
  for at, value in flips:
    changed[at % len(changed)] = value
  return bytes(changed)


@settings(max_examples=300, deadline=None)
@given(FLIPS)
def test_a_changed_pickle_gives_a_source_or_a_refusal(tmp_path_factory, flips):
  named = dict(entries(state() | {"n": 3, "o": collections.OrderedDict(x=(1.5, None))}))
  named["archive/data.pkl"] = flipped(named["archive/data.pkl"], flips)
  opened(write(tmp_path_factory.getbasetemp() / "flipped.bin", named.items()))


@settings(max_examples=300, deadline=None)
@given(FLIPS)
def test_a_changed_archive_gives_a_source_or_a_refusal(tmp_path_factory, flips):
  path = tmp_path_factory.getbasetemp() / "flipped.bin"
  path.write_bytes(flipped(archived(entries(state())), flips))
  opened(path)


def test_what_torch_saves_is_read(tmp_path):
  torch = pytest.importorskip("torch", reason="compares with PyTorch's own files")
  layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
  tensors = {name: value.detach() for name, value in layer.state_dict().items()}
  tensors |= {"t": tensors["0.weight"].T, "h": torch.ones(2, dtype=torch.bfloat16)}
  tensors |= {"part": torch.arange(12).reshape(3, 4)[1:, ::2], "parameter": layer[0].weight}
  for saved in (tensors, {"model": tensors, "epoch": 1}, {"state_dict": layer.state_dict()}):
    torch.save(saved, tmp_path / "x.pth")
    source = TorchSource(tmp_path / "x.pth")
    assert set(source.entries()) <= set(tensors)
    for name in source.entries():
      expected = tensors[name].detach().float().numpy()
      np.testing.assert_array_equal(source.read(name).astype(np.float32), expected)
