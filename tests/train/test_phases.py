"""Phases: their names, their time, and that every change is seen."""

import pytest

from eagle_jax.train import phases


def test_every_change_is_progress_and_time_adds_up():
  phase = phases.Phases()
  seen = [phase.entered]
  for _ in range(2):
    with phase(phases.DATA):
      assert phase.name == "data"
      seen.append(phase.entered)
    seen.append(phase.entered)
  assert phase.name == "behind data"
  assert seen == sorted(set(seen))
  once = phase.seconds["data"]
  assert once > 0
  with pytest.raises(KeyError), phase(phases.DATA):
    raise KeyError
  assert phase.seconds["data"] > once
  assert set(phase.seconds) == {"data"}
