"""A checkpoint written slice by slice: what Orbax reads back, what a restart finds."""

import json
import os
import types

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import checkpoint, config
from eagle_jax.checkpoint import manifest, stream
from eagle_jax.errors import EagleError
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.types import Layout

BF16 = np.dtype(ml_dtypes.bfloat16)
LAYOUTS = {
  "a/stack": Layout((3, 8, 4), BF16, depth=1, order="F"),
  "a/groups": Layout((2, 2, 4), np.dtype(np.float32), depth=2),
  "b/whole": Layout((8, 6), np.dtype(np.float32)),
  "b/turned": Layout((8, 6), np.dtype(np.float16), order="F"),
  "b/conv": Layout((2, 3, 4, 5), np.dtype(np.float32), order="F"),
  "scalar": Layout((), np.dtype(np.float32)),
  "empty": Layout((0, 4), np.dtype(np.float32)),
}


def arrays():
  rng = np.random.default_rng(0)
  return {p: rng.normal(size=x.shape).astype(x.dtype) for p, x in LAYOUTS.items()}


def slices(path):
  return list(np.ndindex(*LAYOUTS[path].shape[: LAYOUTS[path].depth]))


def fill(writer, only=lambda path, index: True):
  for path, array in arrays().items():
    for index in slices(path):
      if only(path, index) and not writer.has(path, index):
        writer.put(path, index, array[index])


def loaded(folder, sharding=None):
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = {
    path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for path, x in LAYOUTS.items()
  }
  return checkpoint.load_params(str(folder), wanted)


def assert_all_there(folder):
  got = loaded(folder)
  for path, array in arrays().items():
    np.testing.assert_array_equal(np.asarray(got[path]), array, err_msg=path)


@pytest.mark.parametrize("limit", [stream.MAX_CHUNK, 32])
def test_orbax_reads_what_was_written(limit, tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "MAX_CHUNK", limit)
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer)
  writer.finish({"kind": "test"}, {"beside.txt": b"here"})
  assert_all_there(tmp_path / "made")
  assert checkpoint.stored(str(tmp_path / "made")) == {p: x.shape for p, x in LAYOUTS.items()}
  assert checkpoint.read_meta(str(tmp_path / "made")) == {"kind": "test"}
  assert (tmp_path / "made" / "beside.txt").read_bytes() == b"here"
  chunks = len(list((tmp_path / "made" / "params" / "a.stack").glob("[0-9]*")))
  assert chunks == (3 if limit > 64 else 6)
  assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_shards_are_read_into_a_mesh(tmp_path):
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer)
  writer.finish({}, {})
  mesh = make_mesh(config.Mesh(data=2, fsdp=2, tensor=2))
  sharding = NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))
  wanted = {"a/stack": jax.ShapeDtypeStruct((3, 8, 4), BF16, sharding=sharding)}
  got = checkpoint.load_params(str(tmp_path / "made"), wanted)["a/stack"]
  assert got.sharding == sharding
  np.testing.assert_array_equal(np.asarray(got), arrays()["a/stack"])


def test_a_transposed_matrix_is_stored_with_the_bytes_it_came_with(tmp_path):
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer)
  writer.finish({}, {})
  file = tmp_path / "made" / "params" / "b.turned" / "0.0"
  assert file.read_bytes() == np.ascontiguousarray(arrays()["b/turned"].T).tobytes()


def test_an_interrupted_checkpoint_has_no_name_and_goes_on(tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "SYNC_BYTES", 1)
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer, only=lambda path, index: path < "b/conv")
  with pytest.raises(EagleError, match=r"slices were never written: .*b/whole"):
    writer.finish({}, {})
  assert not (tmp_path / "made").exists()
  journal = tmp_path / "made.partial" / stream.JOURNAL
  # The machine lost its power while a line was written, and one file of the journal is short.
  lines = journal.read_text().splitlines(keepends=True)
  journal.write_text("".join(lines) + lines[-1][:20])
  short = json.loads(lines[-1])["file"]
  (tmp_path / "made.partial" / short).write_bytes(b"")

  again = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  have = [(p, i) for p in LAYOUTS for i in slices(p) if again.has(p, i)]
  assert len(have) == len(lines) - 2
  fill(again)
  again.finish({}, {})
  assert_all_there(tmp_path / "made")
  assert manifest.check(tmp_path / "made", contents=True) > len(LAYOUTS)


def test_it_goes_on_when_it_was_cut_off_while_it_was_made_whole(tmp_path, monkeypatch):
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer)

  def cut(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(manifest, "write", cut)
  with pytest.raises(KeyboardInterrupt):
    writer.finish({}, {})
  monkeypatch.undo()
  again = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(again)
  again.finish({}, {})
  assert_all_there(tmp_path / "made")


@pytest.mark.parametrize("journal", [b"", b'{"identity": "x', None])
def test_what_was_cut_off_at_its_very_beginning_begins_anew(journal, tmp_path):
  old = {"gone": LAYOUTS["b/whole"], "b/whole": LAYOUTS["b/turned"]}
  checkpoint.Writer(tmp_path / "made", old, identity="x")
  (tmp_path / "made.partial" / stream.JOURNAL).unlink()
  if journal is not None:
    (tmp_path / "made.partial" / stream.JOURNAL).write_bytes(journal)
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="y")
  fill(writer)
  writer.finish({}, {})
  assert_all_there(tmp_path / "made")
  assert not (tmp_path / "made" / "params" / "gone").exists()


def test_what_was_cut_off_anywhere_is_written_again(tmp_path, monkeypatch):
  monkeypatch.setattr(stream, "SYNC_BYTES", 1)
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer)
  partial = tmp_path / "made.partial"
  (partial / stream.ARRAYS / "b.whole" / ".zarray").write_bytes(b'{"chunks": [')
  lines = (partial / stream.JOURNAL).read_text().splitlines(keepends=True)
  # A disk took half a line and, when there was room again, the next ones.
  lines[2] = lines[2][:30]
  (partial / stream.JOURNAL).write_text("".join(lines).rstrip("\n"))
  for _ in range(2):  # the journal itself is mended, too
    again = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
    missing = [(p, i) for p in LAYOUTS for i in slices(p) if not again.has(p, i)]
    assert missing == [("a/stack", (1,)), ("a/stack", (2,)), ("empty", ())]  # nothing to wait for
  fill(again)
  again.finish({}, {})
  assert_all_there(tmp_path / "made")


def test_another_conversion_does_not_go_on(tmp_path):
  checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  with pytest.raises(EagleError, match="interrupted run wrote from other files"):
    checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="y")


def test_nothing_saved_is_overwritten(tmp_path):
  (tmp_path / "made").mkdir()
  with pytest.raises(EagleError, match="exists already"):
    checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")


def test_a_slice_must_fit(tmp_path):
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  with pytest.raises(EagleError, match=r"b/whole\[\] takes float32 \[8, 6\], .* float64 \[8, 6\]"):
    writer.put("b/whole", (), np.zeros((8, 6)))


def test_a_full_disk_leaves_what_is_written(tmp_path, monkeypatch):
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer, only=lambda path, index: path.startswith("a/"))
  real = stream._write_hashed

  def full(path, data):
    if "b.whole" in str(path):
      path.write_bytes(b"half")
      raise OSError(28, "No space left on device")
    return real(path, data)

  monkeypatch.setattr(stream, "_write_hashed", full)
  with pytest.raises(EagleError, match="takes 192 bytes: No space left on device; what is written"):
    fill(writer)
  monkeypatch.undo()
  again = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  assert again.has("a/stack", (2,))
  assert not again.has("b/whole", ())
  fill(again)
  again.finish({}, {})
  assert_all_there(tmp_path / "made")


def test_a_disk_too_full_to_finish_is_told_before_orbax_finds_it(tmp_path, monkeypatch):
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer)
  free = types.SimpleNamespace(f_frsize=4096, f_bavail=2 * len(LAYOUTS) + 255)
  monkeypatch.setattr(os, "statvfs", lambda path: free)
  told = r"made\.partial: the disk is full, 1105920 bytes must be free to finish; what is written"
  with pytest.raises(EagleError, match=told):
    writer.finish({}, {})
  free.f_bavail += 1
  writer.finish({}, {})
  assert_all_there(tmp_path / "made")


def test_a_missing_or_changed_chunk_is_never_read_as_zeros(tmp_path):
  writer = checkpoint.Writer(tmp_path / "made", LAYOUTS, identity="x")
  fill(writer)
  writer.finish({}, {})
  file = tmp_path / "made" / "params" / "b.whole" / "0.0"
  data = file.read_bytes()
  file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = {"scalar": jax.ShapeDtypeStruct((), np.float32, sharding=one)}
  checkpoint.load_params(str(tmp_path / "made"), wanted)
  with pytest.raises(EagleError, match=r"b\.whole/0\.0 is changed"):
    checkpoint.load_params(str(tmp_path / "made"), wanted, verify=True)
  file.unlink()
  with pytest.raises(EagleError, match=r"b\.whole/0\.0 is missing"):
    checkpoint.load_params(str(tmp_path / "made"), wanted)
