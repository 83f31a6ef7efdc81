"""The manifest of a folder: every file is in it, and every damage is found."""

import hashlib
import json

import pytest

from eagle_jax.checkpoint import manifest
from eagle_jax.errors import EagleError


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "deep").mkdir()
  for number in range(8):
    (tmp_path / "deep" / f"{number}").write_bytes(bytes(100 + number))
  (tmp_path / "empty").write_bytes(b"")
  manifest.write(tmp_path, {})
  return tmp_path


def test_an_unchanged_folder_passes(folder):
  assert manifest.check(folder, contents=True) == 9
  assert manifest.check(folder, contents=False) == 9


def test_a_folder_without_a_manifest_has_nothing_to_hold_against(tmp_path):
  assert manifest.check(tmp_path, contents=True) == 0


def test_known_digests_are_not_read_again(tmp_path):
  (tmp_path / "a").write_bytes(b"a")
  manifest.write(tmp_path, {"a": {"bytes": 1, "sha256": "told"}})
  assert json.loads((tmp_path / manifest.FILE).read_text())["files"]["a"]["sha256"] == "told"


@pytest.mark.parametrize("bit", [0, 399, 807])
def test_a_flipped_bit_is_found(folder, bit):
  file = folder / "deep" / "3"
  data = bytearray(file.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  file.write_bytes(data)
  manifest.check(folder, contents=False)
  now, then = (hashlib.sha256(bytes_).hexdigest() for bytes_ in (data, bytes(103)))
  with pytest.raises(
    EagleError, match=f"deep/3 is changed, its SHA-256 is {now}, it was written with {then}"
  ):
    manifest.check(folder, contents=True)


def test_swapped_files_are_found_though_their_sizes_agree(tmp_path):
  for name in ("a", "b"):
    (tmp_path / name).write_text(name)
  manifest.write(tmp_path, {})
  (tmp_path / "a").write_text("b")
  (tmp_path / "b").write_text("a")
  with pytest.raises(EagleError, match=r"a is changed.*b is changed"):
    manifest.check(tmp_path, contents=True)


def test_processes_share_the_files(folder):
  """The largest is deep/7: each damage is found by one of three, each file looked at by one."""
  for name in ("7", "0"):
    (folder / "deep" / name).unlink()
  told = []
  for number in range(3):
    try:
      assert manifest.check(folder, contents=True, share=(number, 3)) == 9
    except EagleError as error:
      told.append(str(error))
  assert sum("deep/7" in text for text in told) == 1
  assert sum("deep/0" in text for text in told) == 1


def test_missing_and_short_files_are_named_without_reading(folder):
  (folder / "deep" / "1").unlink()
  (folder / "deep" / "2").write_bytes(b"x")
  with pytest.raises(EagleError, match=r"deep/1 is missing; deep/2 has 1 bytes, .* with 102"):
    manifest.check(folder, contents=False)


def test_a_long_list_is_cut(folder):
  for file in (folder / "deep").iterdir():
    file.unlink()
  with pytest.raises(EagleError, match="and 3 more"):
    manifest.check(folder, contents=False)


@pytest.mark.parametrize(
  "text", ["{", "[]", '{"filez": {}}', '{"files": []}', '{"files": {"a": {"byte3": 1}}}']
)
def test_a_damaged_manifest_is_an_error(folder, text):
  (folder / manifest.FILE).write_text(text)
  with pytest.raises(EagleError, match="damaged, it is no list of files"):
    manifest.check(folder, contents=True)


def test_a_flipped_bit_in_the_manifest_never_confuses(folder):
  """It is harmless, or an error that says what is wrong: 256 bits of it, spread evenly."""
  file = folder / manifest.FILE
  whole = file.read_bytes()
  outcomes = set()
  for place in range(0, 8 * len(whole), 8 * len(whole) // 256):
    data = bytearray(whole)
    data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)
    try:
      outcomes.add(manifest.check(folder, contents=True))
    except EagleError:
      outcomes.add("found")
  assert outcomes <= {8, 9, "found"}  # 8: a name became another's, and hides a whole file
