"""A run that hangs is seen, shown and ended; one that moves is left alone."""

import queue
import threading
import time

import pytest

from eagle_jax.train import phases, watchdog

SOON = 0.5 / 60
"""Minutes without progress."""
PATIENCE = 60
"""Seconds until something that should happen is given up."""


@pytest.fixture
def ended():
  """Receives the exit code in place of the process's end."""
  return queue.SimpleQueue()


def watch(phase, folder, ended, *, minutes=SOON):
  return watchdog.Watchdog(phase, str(folder), minutes=minutes, process=3, end=ended.put)


def test_what_hangs_is_shown_with_all_stacks_and_ended_to_be_started_again(tmp_path, ended, capfd):
  phase = phases.Phases()
  phase.step = 7
  before = {thread.ident for thread in threading.enumerate()}
  with phase(phases.DATA):
    watching = watch(phase, tmp_path, ended)
    code = ended.get(timeout=PATIENCE)
  watching.close()
  assert code == 42
  said = (tmp_path / "stacks-3.txt").read_text()
  first, second = said.split("watchdog: ")[1:]
  for told in (first, second):
    assert told.startswith("process 3 has not moved for 0.0")
    assert "phase 'data', 7 updates done" in told
    assert f'File "{__file__}"' in told
    # Other tests' threads may come and go: those that were there all the time count.
    lasting = before & {thread.ident for thread in threading.enumerate()}
    assert all(f"hread 0x{ident:016x} " in told for ident in lasting)
  assert "it ends" not in first
  assert "it ends, to be started again" in second
  assert said in capfd.readouterr().err


def test_what_moves_is_left_alone(tmp_path, ended):
  phase = phases.Phases()
  watching = watch(phase, tmp_path, ended)
  for _ in range(8 * watchdog.LOOKS):  # far less than a look apart
    with phase(phases.STEP):
      time.sleep(60 * SOON / watchdog.LOOKS / 2)
  watching.close()
  assert ended.empty()
  assert not (tmp_path / "stacks-3.txt").exists()


def test_zero_minutes_never_look(tmp_path, ended):
  before = threading.active_count()
  watching = watch(phases.Phases(), tmp_path, ended, minutes=0)
  assert threading.active_count() == before
  watching.close()


def test_a_full_disk_does_not_keep_it_from_ending(tmp_path, ended):
  (tmp_path / "stacks-3.txt").mkdir()
  watching = watch(phases.Phases(), tmp_path, ended)
  assert ended.get(timeout=PATIENCE) == 42
  watching.close()
