"""A run's checkpoints: what is saved comes back whole, or the one before it does."""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from eagle_jax import checkpoint
from eagle_jax.checkpoint import manifest, runs
from eagle_jax.errors import EagleError
from tests.checkpoint import saver

full = pytest.mark.skipif(os.environ.get("EAGLE_FULL") != "1", reason="set EAGLE_FULL=1")

DELAYS = (0.0, 0.03, 0.08, 0.17, 0.31)
"""Seconds from a child's first checkpoint to its death: one save takes about a tenth."""


def opened(folder, **options):
  return checkpoint.Checkpoints(str(folder), **{"keep": 2, **options})


def names(folder):
  return sorted(path.name for path in (folder / "checkpoints").iterdir())


def numbered(folder):
  """Not what Orbax may be writing still into the folder of a save that failed."""
  return [name for name in names(folder) if name.isdigit()]


def loud(test):
  """Marks a test whose saves fail: Orbax lets errors of its threads through to the screen, too."""
  for kind in ("UnhandledThreadException", "UnraisableException"):
    test = pytest.mark.filterwarnings(f"ignore::pytest.Pytest{kind}Warning")(test)
  return test


@contextlib.contextmanager
def files_up_to(limit):
  """No file of this process can grow beyond so many bytes."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def abstract(leaf):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def holds(folder, step):
  """Asserts that a step gives back exactly what was saved there."""
  stream, wanted = saver.Stream(), saver.state(step)
  got = opened(folder).restore(step, data=stream, **jax.tree.map(abstract, wanted))
  jax.tree.map(np.testing.assert_array_equal, got, tuple(wanted.values()))
  assert stream.position == step


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  """A run with the checkpoints 1 and 2."""
  folder = tmp_path_factory.mktemp("run")
  saver.run(str(folder), (1, 2))
  return folder


@pytest.fixture
def run(two, tmp_path):
  """A copy of that run."""
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  return tmp_path


def test_a_run_comes_back_with_its_position(tmp_path, placed):
  params = {"vision/clip/kernel": placed("fsdp", "tensor"), "projector/bias": placed()}
  optimizer = {"mu": placed("fsdp"), "step": jnp.int32(7)}
  stream = saver.Stream()
  checkpoints = opened(tmp_path)
  for step in (1, 2, 3):
    stream.position = step * 10
    checkpoints.save(step, params=params, optimizer=optimizer, data=stream, meta={"template": "v1"})
  checkpoints.close()

  again = opened(tmp_path)
  assert again.newest_good() == 3
  fresh = saver.Stream()
  got, state = again.restore(
    3,
    params=jax.tree.map(abstract, params),
    optimizer=jax.tree.map(abstract, optimizer),
    data=fresh,
  )
  assert fresh.position == 30
  np.testing.assert_array_equal(got["vision/clip/kernel"], params["vision/clip/kernel"])
  assert got["vision/clip/kernel"].sharding == params["vision/clip/kernel"].sharding
  assert int(state["step"]) == 7
  assert checkpoint.read_meta(str(tmp_path)) == {"template": "v1"}
  assert names(tmp_path) == ["2", "3"]
  folder = tmp_path / "checkpoints"
  assert all(checkpoint.is_checkpoint(str(p)) for p in (tmp_path, folder, folder / "3"))
  assert not checkpoint.is_checkpoint(str(folder / "3" / "params"))


def test_how_long_the_others_wait_follows_from_what_each_has_to_write(monkeypatch):
  assert runs.patience(0) == 300
  monkeypatch.setattr(jax, "process_count", lambda: 64)
  assert runs.patience(64 * 10**9) == 400


def test_a_new_run_has_none(tmp_path):
  assert opened(tmp_path).newest_good() is None


def flip(file):
  data = bytearray(file.read_bytes())
  if data:
    data[len(data) // 2] ^= 4
  else:
    data = bytearray(b"\0")
  file.write_bytes(data)


def truncate(file):
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def drop(file):
  file.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, drop])
def test_any_damage_to_any_file_is_found(run, damage, capsys):
  """Of the newest checkpoint, whose number is then free."""
  newest = run / "checkpoints" / "2"
  whole = run / "whole"
  shutil.copytree(newest, whole)
  files = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
  assert len(files) > 10
  for file in files:
    before = (newest / file).read_bytes()
    damage(newest / file)
    if (newest / file).exists() and (newest / file).read_bytes() == before:
      continue  # an empty file cannot be cut
    good = opened(run).newest_good()
    said = capsys.readouterr().out
    if file.name == manifest.FILE and damage is drop:
      assert good == 2
      assert "checkpoint 2 has no manifest.json: it is read unchecked" in said
    else:
      assert good == 1
      assert "checkpoint 2 is set aside as 2.bad, going back: " in said
      assert str(file) in said or file.name == manifest.FILE
      assert names(run) == ["1", "2.bad"]
      shutil.rmtree(run / "checkpoints" / "2.bad")
    shutil.rmtree(newest, ignore_errors=True)
    shutil.copytree(whole, newest)


def test_what_is_set_aside_makes_room_for_the_same_step(run):
  for place in ("2.bad", "2.bad-1"):
    shutil.rmtree(run / "checkpoints" / "2" / "params")
    assert opened(run).newest_good() == 1
    saver.run(str(run), (2,))
    holds(run, 2)
    assert place in names(run)
  assert names(run) == ["1", "2", "2.bad", "2.bad-1"]


def test_where_none_is_good_all_are_named_and_stay(run):
  for step in ("1", "2"):
    flip(run / "checkpoints" / step / "_CHECKPOINT_METADATA")
  for _ in range(2):  # a launcher that tries again must not begin from nothing
    with pytest.raises(EagleError, match=r"no checkpoint in .*/2 is damaged.*/1 is damaged"):
      opened(run).newest_good()
  assert names(run) == ["1", "2"]


def test_without_verify_names_and_sizes_are_looked_at_only(run):
  metadata = run / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
  flip(metadata)
  assert opened(run, verify=False).newest_good() == 2
  drop(metadata)
  assert opened(run, verify=False).newest_good() == 1


def test_a_checkpoint_of_an_older_version_is_read_with_a_note(tmp_path, capsys):
  """It came from Orbax's own Checkpointer, and has no manifest."""
  folder = tmp_path / "checkpoints"
  parts = saver.state(5)
  stream = saver.Stream(5)
  with ocp.training.Checkpointer(folder) as older:
    older.save_checkpointables(
      5,
      {
        "params": {"a": {"kernel": parts["params"]["a/kernel"]}},
        "optimizer": parts["optimizer"],
        "data": runs._DataState(stream),
      },
    )
  assert opened(tmp_path).newest_good() == 5
  assert "checkpoint 5 has no manifest.json" in capsys.readouterr().out
  holds(tmp_path, 5)


def test_what_the_stream_says_of_its_position_is_heard(run, monkeypatch):
  def refuse(self, state):
    raise EagleError(f"nothing lies behind {state}")

  monkeypatch.setattr(saver.Stream, "set_state", refuse)
  with pytest.raises(EagleError, match=r"nothing lies behind \{'position': 2\}"):
    holds(run, 2)


def test_the_stream_hears_where_other_processes_stood(run, monkeypatch):
  """Which decides whether it can go on from there."""
  data = run / "checkpoints" / "2" / "data"
  (data / "process_0-of-1.json").rename(data / "process_0-of-2.json")
  with pytest.raises(EagleError, match=r"no process_0-of-1\.json, only process_0-of-2\.json"):
    holds(run, 2)
  for n in range(11):
    (data / f"process_{n}-of-11.json").write_text(json.dumps({"position": n}))
  (data / "process_0-of-2.json").unlink()
  heard = []
  monkeypatch.setattr(saver.Stream, "adopt", lambda self, states: heard.extend(states))
  wanted = saver.state(2)
  got = opened(run).restore(2, data=saver.Stream(), **jax.tree.map(abstract, wanted))
  assert heard == [{"position": n} for n in range(11)]
  jax.tree.map(np.testing.assert_array_equal, got, tuple(wanted.values()))


@loud
def test_a_full_disk_costs_one_checkpoint_and_no_run(run, capsys):
  """Files cannot grow beyond a limit while checkpoint 3 is saved."""
  checkpoints = opened(run)
  for limit, last in ((0, False), (200, False), (3000, True)):
    with files_up_to(limit):
      if last:
        with pytest.raises(EagleError, match=r"checkpoint 3 is not saved.*goes on from there"):
          saver.save(checkpoints, 3, last=True)
      else:
        saver.save(checkpoints, 3)
        told = checkpoints.wait()
        assert "File too large" in told
        assert re.search(r"takes up to 65,540 bytes, [\d,]+ are free in .*checkpoints", told)
    assert numbered(run) == ["1", "2"]
  assert capsys.readouterr().out.count("and the next is tried in its turn") == 2
  assert opened(run).newest_good() == 2
  saver.save(checkpoints, 4, last=True)
  assert numbered(run) == ["2", "4"]
  holds(run, 4)


def test_a_disk_that_is_gone_costs_one_checkpoint(run):
  """This fails before anything is written behind."""
  checkpoints = opened(run)
  folder = run / "checkpoints"
  folder.rename(run / "away")
  folder.write_text("no folder")
  saver.save(checkpoints, 3)
  assert "checkpoint 3 is not saved: NotADirectoryError" in checkpoints.wait()
  folder.unlink()
  (run / "away").rename(folder)
  saver.save(checkpoints, 4, last=True)
  assert names(run) == ["2", "4"]


def test_an_error_while_hashing_costs_the_checkpoint_only(run, monkeypatch):
  """Of a save: nothing is committed. Of a restore: the one before is taken."""
  checkpoints = opened(run)

  def broken(path, **_options):
    raise OSError(errno.EIO, "Input/output error", str(path))

  with monkeypatch.context() as patched:
    patched.setattr(manifest, "digest", broken)
    saver.save(checkpoints, 3)
    assert "checkpoint 3 is not saved: OSError: [Errno 5]" in checkpoints.wait()
  assert numbered(run) == ["1", "2"]
  whole = manifest.digest
  monkeypatch.setattr(
    manifest, "digest", lambda path, **o: broken(path) if "2" in path.parts else whole(path, **o)
  )
  assert opened(run).newest_good() == 1


@pytest.fixture(scope="module")
def processes():
  """Children forked from a server that has everything imported, so that they start at once."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["tests.checkpoint.saver"])
  return context


def kill_and_go_on(folder, processes, delay):
  """Lets a child save one checkpoint after the other and kills it; returns what that left."""
  ready = processes.Event()
  first = 1 + max(map(int, numbered(folder)), default=0)
  child = processes.Process(target=saver.run, args=(str(folder), range(first, 10**6), ready))
  child.start()
  assert ready.wait(60)
  time.sleep(delay)
  child.kill()
  child.join()
  left = names(folder)
  step = opened(folder).newest_good()
  assert step is not None
  holds(folder, step)
  assert all(name.isdigit() for name in names(folder))
  return left


@pytest.mark.parametrize("delay", DELAYS)
def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path, processes, delay):
  (tmp_path / "checkpoints").mkdir()
  kill_and_go_on(tmp_path, processes, delay)


@pytest.mark.parametrize(
  ("name", "left", "newest"),
  [
    ("manifest.write", ["1", "2", "3.saving"], 2),
    ("os.rename", ["1", "2", "3.saving"], 2),
    ("keep_newest", ["1", "2", "3"], 3),
    ("shutil.rmtree", ["1.deleting", "2", "3"], 3),
  ],
)
def test_kill_9_at_each_point_of_a_commit(run, processes, name, left, newest):
  child = processes.Process(target=saver.die_at, args=(str(run), 3, name))
  child.start()
  child.join(60)
  assert child.exitcode == -9
  assert names(run) == left
  assert opened(run).newest_good() == newest
  assert all(entry.isdigit() for entry in names(run))
  holds(run, newest)


@full
def test_full_hundred_kills(tmp_path, processes):
  """One run, killed at a hundred random moments."""
  moments = random.Random(0)
  (tmp_path / "checkpoints").mkdir()
  left = [kill_and_go_on(tmp_path, processes, moments.uniform(0, 0.3)) for _ in range(100)]
  interrupted = sum(not all(name.isdigit() for name in entries) for entries in left)
  print(f"100 kills, {interrupted} in the middle of a save or a removal")
  assert interrupted > 10


@full
@loud
def test_full_two_hundred_failed_saves(run):
  """Saves under a random limit of the size of files: whatever fails, what counts is whole."""
  limits = random.Random(0)
  checkpoints = opened(run)
  failed, newest = 0, 2
  for step in range(3, 10**6):
    with files_up_to(limits.randrange(40_000)):
      saver.save(checkpoints, step)
      bad = bool(checkpoints.wait())
    failed += bad
    newest = newest if bad else step
    assert checkpoints.newest_good() == newest
    assert str(newest) in numbered(run)
    if failed == 200:
      break
  print(f"200 saves failed, {step - 2 - failed} between them did not")
  holds(run, newest)
