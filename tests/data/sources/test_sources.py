"""What the system refuses to read is an error in one line, never a traceback."""

import dataclasses
import errno
import os
import pathlib
import pickle

import pytest

from eagle_jax.cli.main import main
from eagle_jax.data import pipeline, sources, tokenize
from eagle_jax.data.records import Limits
from eagle_jax.errors import EagleError

SICK = "/proc/self/mem"
"""A file that opens, and whose first byte is an error of input."""
NEEDS_SICK = pytest.mark.skipif(not os.path.exists(SICK), reason=f"this system has no {SICK}")


def open_source(data):
  return sources.open_source(data.records, data.images, Limits(1))


def test_a_file_that_vanishes_while_it_is_read_is_named(dataset):
  data = dataset(2)
  source = pickle.loads(pickle.dumps(open_source(data)))
  assert source[1].id == "1"
  pathlib.Path(data.records).unlink()
  with pytest.raises(EagleError, match=r"records\.json' cannot be read: No such file.*put it back"):
    source[1]
  with pytest.raises(EagleError, match="put it back, or name where it is now"):
    open_source(data)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_ends_with_that_error_and_not_with_a_bad_record(dataset, workers):
  data = dataset(2, workers=workers, bad_budget=1.0)
  batches = pipeline.make_iterator(data, batch_size=1, seed=0, image_size=8, tokens_per_image=4)
  pathlib.Path(data.records).unlink()
  with pytest.raises(EagleError, match=r"records\.json' cannot be read: No such file"):
    next(batches)
  batches.close()


def test_a_picture_that_vanishes_is_a_bad_record(dataset):
  data = dataset(2, bad_budget=0.5)
  batches = pipeline.make_iterator(data, batch_size=1, seed=0, image_size=8, tokens_per_image=4)
  (pathlib.Path(data.images) / "1.png").unlink()
  for _ in range(2):
    next(batches)
  assert batches.bad.by_reason == {"missing file": 1}


@NEEDS_SICK
def test_a_sick_disk_is_told_of_in_one_line(vocabulary, capsys):
  assert main(["data", "stats", f"json:{SICK}", f"--tokenizer={vocabulary}"]) == 2
  said = capsys.readouterr().err
  assert said == (
    f"eagle-jax: data.records 'json:{SICK}' cannot be read: Input/output error; see to the "
    "disk; a run goes on from its checkpoint\n"
  )
  with pytest.raises(EagleError, match=f"data.tokenizer '{SICK}' cannot be read: Input/output"):
    tokenize.load(SICK)


def test_rights_are_missed_by_name(dataset, monkeypatch, tmp_path):
  data = dataset(1)
  monkeypatch.setattr(os, "access", lambda path, mode: path != data.images)
  with pytest.raises(
    EagleError, match=r"data\.images .*pictures' cannot be read: .*give this user"
  ):
    open_source(data)
  monkeypatch.undo()

  def refuse(path):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

  monkeypatch.setattr(os, "listdir", refuse)
  with pytest.raises(EagleError, match=r"cannot be read: Permission denied; give this user the"):
    open_source(dataclasses.replace(data, records=str(tmp_path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is refused to root")
def test_rights_that_are_taken_away(dataset):
  data = dataset(1)
  for place in (data.images, data.records):
    os.chmod(place, 0)
    with pytest.raises(EagleError, match=r"cannot be read: .*give this user the right"):
      open_source(data)


def test_a_file_of_many_is_named_beside_the_place():
  error = OSError(errno.EIO, "Input/output error", "shards/b")
  told = str(sources.unreadable("data.records 'shards'", error))
  assert told.startswith("data.records 'shards' cannot be read: 'shards/b' Input/output error; ")
