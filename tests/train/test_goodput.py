"""Where the time went, for runs whose rows are written by hand."""

import pytest

from eagle_jax.train import goodput


def row(attempt, at, time, **values):
  parts = {f"seconds/{name}": value for name, value in values.items() if name != "updates"}
  updates = values.get("updates", 0.0)
  seconds = sum(parts.values())
  return {
    "attempt": attempt,
    "step": at,
    "time": time,
    "updates": updates,
    "seconds": seconds,
  } | parts


def test_all_of_an_undisturbed_run_is_accounted_for():
  rows = [
    row(1, 0, 100.0),
    row(1, 5, 150.0, updates=5, compile=20.0, step=25.0, data=5.0),
    row(1, 10, 190.0, updates=5, step=30.0, save=10.0),
    row(1, 10, 200.0, save=10.0),
  ]
  found = goodput.account(rows)
  assert found.seconds == 100
  assert found.shares == pytest.approx(
    {"step": 0.55, "compile": 0.2, "data": 0.05, "save": 0.2, "lost": 0, "stopped": 0}
  )
  told = str(found)
  assert told.startswith("goodput: 55.0% of 100 s")
  assert "saving 20.0%" in told
  assert "not running" not in told


def test_updates_done_again_and_time_between_attempts_do_not_count():
  """Saved at 6 and 2: of the first attempt 2 updates stay, the second attempt comes to nothing."""
  rows = [
    row(1, 0, 0.0),
    row(1, 4, 4.0, updates=4, step=4.0),
    row(1, 8, 8.0, updates=4, step=4.0),
    row(2, 6, 10.0),
    row(2, 7, 11.0, updates=1, step=1.0),
    row(3, 2, 12.0),
    row(3, 10, 20.0, updates=8, step=8.0),
  ]
  found = goodput.account(rows)
  assert found.shares == pytest.approx(
    {"step": (2 + 8) / 20, "lost": (2 + 4 + 1) / 20, "stopped": 3 / 20}
  )


@pytest.mark.parametrize("rows", [[], [row(1, 0, 5.0)]])
def test_no_time_no_account(rows):
  assert goodput.account(rows) is None
