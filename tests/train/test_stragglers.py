"""Who holds up the others is named, and nobody else."""

import pytest

from eagle_jax.train import phases, stragglers


def row(data, *, step=1.0, save=0.0):
  return {phases.DATA: data, phases.STEP: step, phases.SAVE: save}


@pytest.mark.parametrize(
  ("seconds", "named"),
  [
    ([row(0.1), row(0.1), row(0.5, step=0.6), row(0.1)], ["process 2: data"]),
    ([row(0.4, step=0.8), row(0.1)], ["process 0: data"]),
    ([row(0.1, save=1.0), row(0.1, save=0.1)], ["process 0: save"]),
    ([row(0.2), row(0.1), row(0.1)], []),  # less than three times
    ([row(0.01), row(0.0), row(0.0)], []),  # a small part of a step
    ([row(5.0), row(5.0), row(5.0)], []),  # all are slow
  ],
)
def test_slow_is_three_times_the_others(seconds, named):
  assert stragglers.slow(seconds) == named


def test_the_table_has_a_line_for_each_process():
  seconds = [row(0.1), row(0.5)]
  told = stragglers.table(20, seconds, ["process 1: data"]).splitlines()
  assert told[0] == "step 20: the others wait for process 1: data; seconds per update:"
  assert told[1].split() == ["process", "data", "step", "save"]
  assert told[3].split() == ["1", "0.500", "1.000", "0.000"]


def test_one_process_compares_nothing(capsys):
  phase = phases.Phases()
  with phase(phases.DATA):
    pass
  stragglers.Stragglers(phase).compare()
  assert not capsys.readouterr().out
