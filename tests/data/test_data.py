"""The package as a whole: streams that `kill -9` ends, again and again, have no other batches."""

import dataclasses
import itertools
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from eagle_jax import config
from eagle_jax.data import planned
from tests.data import killed
from tests.datasets import record

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 300  # seconds that a process may take on a machine that others use, too


@pytest.fixture
def mixed(dataset, monkeypatch):
  """Two sources of many lengths, weighted, one with pictures, of which one is broken."""
  monkeypatch.setattr(planned, "PACKED_SAMPLES", killed.WINDOW)
  words = [record(f"w{n}", None, "It is 7. " * (n % 9 + 1), "Which one?") for n in range(20)]
  data = dataset(9, entries=words, broken=[4], max_length=96, bad_budget=0.2)
  given = config.Source(records=data.records, images=data.images)
  parts = (
    dataclasses.replace(given, weight=3.0),
    dataclasses.replace(given, weight=1.0, system="Be kind."),
  )
  return dataclasses.replace(data, records="", images="", sources=parts, max_images=3)


def start(folder):
  """Starts to draw, in a group of processes with its workers."""
  return subprocess.Popen(
    [sys.executable, "-m", "tests.data.killed", str(folder)], cwd=ROOT, start_new_session=True
  )


def kill_after(folder, lines, pause):
  """Draws until so many more batches are logged and a little longer, then kills without warning."""
  wanted, child = len(killed.log(folder)) + lines, start(folder)
  try:
    until = time.monotonic() + PATIENCE
    while len(killed.log(folder)) < wanted:
      assert child.poll() is None, "it ended before it could be killed"
      assert time.monotonic() < until
      time.sleep(0.001)
    time.sleep(pause)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    while alive(child.pid):  # the workers have to see for themselves that it is gone
      assert time.monotonic() < until
      time.sleep(0.01)
  finally:
    if alive(child.pid):
      os.killpg(child.pid, signal.SIGKILL)


def alive(group):
  """Whether any process of a group is left that does more than wait to be reaped."""
  for place in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      state, _, of = place.read_text().rpartition(")")[2].split()[:3]
    except OSError:
      continue  # it has ended meanwhile
    if int(of) == group and state != "Z":
      return True
  return False


def demand_whole(folder, data, *, kills):
  """Checks that every batch drawn is the one of a stream that nothing ends."""
  chance = random.Random(kills)
  killed.ask(folder, data, 10**9)
  for _ in range(kills):
    kill_after(folder, chance.randrange(1, 8), chance.random() / 20)
  steps = max(step for step, _ in killed.log(folder)) + 9
  killed.ask(folder, data, steps)
  assert start(folder).wait(PATIENCE) == 0
  batches = killed.stream(dataclasses.replace(data, workers=0))
  want = [killed.digest(batch) for batch in itertools.islice(batches, steps)]
  drawn = killed.log(folder)
  assert len(set(want)) > 8
  assert [digest for _, digest in drawn] == [want[step] for step, _ in drawn]
  assert {step for step, _ in drawn} == set(range(steps))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_packed_mixture_goes_on_after_kill_9(mixed, tmp_path, workers):
  data = dataclasses.replace(mixed, pack=True, workers=workers)
  demand_whole(tmp_path / "run", data, kills=1 if workers else 2)


@pytest.mark.skipif("EAGLE_FULL" not in os.environ, reason="minutes: EAGLE_FULL=1")
@pytest.mark.parametrize("fields", [{"pack": True}, {"lengths": (48, 96)}, {}])
def test_full_streams_go_on_after_many_kills(mixed, tmp_path, fields):
  for workers in (0, 2):
    data = dataclasses.replace(mixed, workers=workers, **fields)
    demand_whole(tmp_path / f"run{workers}", data, kills=7)


def test_the_mixture_may_change_when_a_packed_run_goes_on(mixed):
  """Its window begins at the same position of the new mixture's stream, as docs/data.md says."""
  data = dataclasses.replace(mixed, pack=True)
  other = dataclasses.replace(data, sources=tuple(reversed(data.sources)))
  first = killed.stream(data)
  state = first.get_state()
  while not state["position"] or state["given"] in (0, 1) or state["given"] % 2:
    next(first)  # until it is inside a window, between two batches of two rows
    state = first.get_state()
  fresh, behind = killed.stream(other), killed.stream(other)
  fresh.set_state(state)
  behind.set_state({"position": state["position"], "given": 0})
  for _ in range(state["given"] // 2):  # rows that the old plan of the window has given
    next(behind)
  got = [killed.digest(next(fresh)) for _ in range(6)]
  assert got == [killed.digest(next(behind)) for _ in range(6)]
  assert len(set(got)) == 6
