"""The manifest of a folder: every file is in it, and every damage is found."""

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
  with pytest.raises(EagleError, match="deep/3 is changed"):
    manifest.check(folder, contents=True)


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


def test_a_damaged_manifest_is_an_error(folder):
  (folder / manifest.FILE).write_text("{")
  with pytest.raises(EagleError, match="damaged"):
    manifest.check(folder, contents=True)
