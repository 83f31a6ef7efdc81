import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from eagle_jax import config
from eagle_jax.data import build, sources
from eagle_jax.data.records import BadRecordError, Limits
from eagle_jax.errors import EagleError
from tests.datasets import record


@pytest.fixture
def wanted(tmp_path):
  """Twelve records about pictures of a few kB; the eighth picture is none."""
  folder = tmp_path / "pictures"
  folder.mkdir()
  rng = np.random.default_rng(0)
  made = [{"id": "words", "conversations": record("", "", "x", "What?")["conversations"]}]
  for n in range(12):
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{n}.png")
    made.append(record(str(n), f"{n}.png", f"answer {n}"))
  (folder / "8.png").write_bytes(b"this is none")
  made.append(record("gone", "gone.png", "x"))
  (tmp_path / "records.json").write_text(json.dumps(made))
  source = config.Source(records=str(tmp_path / "records.json"), images=str(folder), licence="CC0")
  return build.Wanted(source, Limits(1), budget=0.5, shard_bytes=15_000)


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())}


def test_shards_hold_the_files_and_the_manifest_tells_of_them(wanted, tmp_path):
  seen = []
  manifest = build.build(wanted, str(tmp_path / "out"), progress=lambda n, of: seen.append((n, of)))
  assert seen[-1] == (13, 13)
  assert manifest["records"] == 12
  assert manifest["bad"] == {"missing file": 1, "unreadable image": 1}
  assert (manifest["licence"], manifest["source"]["records"]) == ("CC0", wanted.source.records)
  assert [shard["name"][-5:] for shard in manifest["shards"]] == ["00006"] * 6
  assert set(contents(tmp_path / "out")) == {
    "manifest.json",
    *(shard["name"] for shard in manifest["shards"]),
  }
  assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
  source = sources.open_source(str(tmp_path / "out"), "", Limits(1))
  given = sources.open_source(wanted.source.records, wanted.source.images, Limits(1))
  kept = [n for n in range(13) if n != 9]
  assert len(source) == 12
  assert source.licence == "CC0"
  for got, want in zip((source[n] for n in range(12)), (given[n] for n in kept), strict=True):
    assert (got.id, got.turns) == (want.id, want.turns)
    assert list(got.images) == [
      (tmp_path / "pictures" / str(name)).read_bytes() for name in want.images
    ]


@pytest.mark.parametrize("stop", [0, 3, 6, 12])
def test_an_interrupted_build_ends_with_the_same_bytes(wanted, tmp_path, stop):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  build.build(wanted, str(whole))

  def interrupt(done, total):
    if done == stop:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    build.build(wanted, str(broken), progress=interrupt)
  assert not broken.exists()
  finished = contents(tmp_path / "broken.partial")["journal.jsonl"].count(b"\n") - 1
  seen = []
  build.build(wanted, str(broken), progress=lambda done, total: seen.append(done))
  assert (finished > 0) == (seen[0] > 0)
  assert contents(broken) == contents(whole)
  assert not (tmp_path / "broken.partial").exists()


def test_a_build_killed_at_its_very_end_goes_on(wanted, tmp_path, monkeypatch):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  build.build(wanted, str(whole))
  with monkeypatch.context() as patched:
    patched.setattr(build, "_sync", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      build.build(wanted, str(broken))
  build.build(wanted, str(broken))
  assert contents(broken) == contents(whole)


def test_other_files_or_options_do_not_go_on(wanted, tmp_path):
  def interrupt(done, total):
    if done == 9:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    build.build(wanted, str(tmp_path / "out"), progress=interrupt)
  for other in (wanted.source, config.Source(records=wanted.source.records, images="", cap=1)):
    changed = build.Wanted(other, Limits(2), budget=1.0, shard_bytes=15_000)
    with pytest.raises(EagleError, match=r"other files or with other options|must name the folder"):
      build.build(changed, str(tmp_path / "out"))
  path = pathlib.Path(wanted.source.records)
  path.write_text(path.read_text() + " ")
  with pytest.raises(EagleError, match="other files or with other options"):
    build.build(wanted, str(tmp_path / "out"))


def test_nothing_is_overwritten_and_the_budget_holds(wanted, tmp_path):
  with pytest.raises(EagleError, match="exists already"):
    build.build(wanted, str(tmp_path))
  strict = build.Wanted(wanted.source, Limits(1), budget=0.1, shard_bytes=10**9)
  with pytest.raises(EagleError, match=r"2 of 14 .*missing file \(1\), unreadable image \(1\)"):
    build.build(strict, str(tmp_path / "out"))


def test_check_finds_what_changed(wanted, tmp_path):
  out = tmp_path / "out"
  build.build(wanted, str(out))
  assert build.check(str(out)) == 6
  shard = next(out.glob("*-00002-*"))
  data = bytearray(shard.read_bytes())
  data[70_000] ^= 1
  shard.write_bytes(data)
  with pytest.raises(EagleError, match="00002-of-00006 is not as it was written"):
    build.check(str(out))
  shard.unlink()
  with pytest.raises(EagleError, match="is missing"):
    build.check(str(out))
  with pytest.raises(EagleError, match=r"has no manifest\.json"):
    build.check(str(tmp_path))


def test_a_picture_is_looked_at_before_it_is_taken(tmp_path, monkeypatch):
  folder = tmp_path / "pictures"
  folder.mkdir()
  (folder / "a.png").write_bytes(b"x" * 100)
  given = sources.Record("a", ("a.png",), (), "f", 1, str(folder))
  with pytest.raises(BadRecordError, match="unreadable image"):
    build.encoded_images(given)
  monkeypatch.setattr(build, "MAX_IMAGE", 99)
  with pytest.raises(BadRecordError, match="more than 99 bytes"):
    build.encoded_images(given)
