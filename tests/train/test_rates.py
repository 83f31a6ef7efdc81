"""Rates by a clock that is set by hand."""

import pytest

from eagle_jax.train import phases, rates, work

NEEDED = work.Work(image=400.0, image_tokens=4, token=10.0, pair=1.0, target=5.0)
HELD = {
  work.TOKENS: 30.0,
  work.POSITIONS: 40.0,
  work.IMAGE_TOKENS: 8.0,
  work.PAIRS: 100.0,
  work.TARGETS: 6.0,
}


class Hands:
  """A clock, in the place of the module `time`, that phases and rates look at."""

  def __init__(self, monkeypatch):
    self.now = 1000.0
    for module in (phases, rates):
      monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

  def spend(self, phase, **seconds):
    for name, value in seconds.items():
      with phase(name):
        self.now += value


@pytest.fixture
def hands(monkeypatch):
  return Hands(monkeypatch)


def test_starting_and_saving_are_told_apart_from_updating(hands):
  phase = phases.Phases()
  hands.spend(phase, restore=7.0)
  made = rates.Rates(phase, NEEDED, kind="TPU v4", devices=2)
  hands.spend(phase, compile=50.0, data=1.0, step=3.0, save=4.0)
  hands.now += 1.0
  row = made.row([HELD, HELD])
  assert row["seconds"] == 66.0
  parts = {name: row[f"seconds/{name}"] for name in ("restore", "compile", "data", "step", "save")}
  assert parts == {"restore": 7.0, "compile": 50.0, "data": 1.0, "step": 3.0, "save": 4.0}
  assert row["seconds/other"] == 1.0
  assert row["seconds_per_update"] == 2.5
  assert row["tokens_per_second"] == 12.0
  assert row["positions_per_second"] == 16.0
  assert row["images_per_second"] == 0.8
  flops = 2 * (400 * 2 + 10 * 30 + 100 + 5 * 6) / 5
  assert row["flops_per_second"] == flops
  assert row["mfu"] == flops / (2 * 275e12)
  assert made.overall == 4.5  # with the save, without the start


def test_each_row_is_of_what_came_since_the_last(hands):
  phase = phases.Phases()
  made = rates.Rates(phase, NEEDED, kind="cpu", devices=1)
  hands.spend(phase, step=3.0)
  made.row([HELD])
  hands.spend(phase, step=1.0)
  row = made.row([HELD])
  assert (row["seconds"], row["seconds/step"], row["updates"]) == (1.0, 1.0, 1.0)
  assert "mfu" not in row
  assert made.overall == 2.0


def test_updates_that_tell_nothing_of_their_batch_have_a_pace_alone(hands):
  phase = phases.Phases()
  made = rates.Rates(phase, NEEDED, kind="cpu", devices=1)
  hands.spend(phase, step=2.0)
  row = made.row([{}])
  assert row["seconds_per_update"] == 2.0
  assert "tokens_per_second" not in row


@pytest.mark.parametrize(
  ("row", "words"),
  [
    ({}, ""),
    (
      {"seconds_per_update": 0.4217, "tokens_per_second": 12345.0, "mfu": 0.4123},
      "0.422 s/update · 12.3k tokens/s · MFU 41.2%",
    ),
    ({"tokens_per_second": 999.9, "flops_per_second": 2.18e9}, "1k tokens/s · 2.18GFLOP/s"),
    ({"tokens_per_second": 7.0, "flops_per_second": 3.2e17}, "7 tokens/s · 320PFLOP/s"),
  ],
)
def test_the_note_is_short(row, words):
  assert rates.note(row) == words
