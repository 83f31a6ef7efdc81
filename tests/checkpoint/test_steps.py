"""The names of checkpoint folders: what counts, what is cleaned away, what keeps out of the way."""

import pytest

from eagle_jax.checkpoint import manifest, steps


@pytest.fixture
def folder(tmp_path):
  """Returns a function: names → a folder with folders of these names, none of them empty."""

  def make(*names):
    for name in names:
      (tmp_path / name / "params").mkdir(parents=True)
      (tmp_path / name / "params" / "array").write_bytes(b"numbers")
    return tmp_path

  return make


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_leftovers_are_removed_and_nothing_else(folder):
  left = ["1.deleting", "3.orbax-checkpoint-tmp-17", "3.saving", "3.saving.orbax-checkpoint-tmp"]
  other = ["2.bad", "20", "9", "notes", "my.saving"]
  home = folder(*left, *other)
  assert steps.clean(home) == left
  assert names(home) == sorted(other)
  assert steps.numbered(home) == [9, 20]


def test_a_commit_hashes_and_renames(folder):
  home = folder("7.saving")
  steps.commit(home, 7)
  assert names(home) == ["7"]
  assert manifest.check(home / "7", contents=True) == 1


def test_a_commit_overwrites_nothing(folder):
  home = folder("7", "7.saving")
  with pytest.raises(OSError, match="not empty"):
    steps.commit(home, 7)
  assert (home / "7" / "params" / "array").exists()


def test_the_newest_are_kept_by_number(folder):
  home = folder("9", "10", "100", "2.bad")
  steps.keep_newest(home, 2)
  assert names(home) == ["10", "100", "2.bad"]


def test_what_is_set_aside_finds_a_free_name(folder):
  home = folder("7", "7.bad", "7.bad-1")
  assert steps.set_aside(home, 7).name == "7.bad-2"
  assert names(home) == ["7.bad", "7.bad-1", "7.bad-2"]
