"""From facts to seconds and hours."""

import dataclasses

import pytest

from eagle_jax.cli import config as cli_config
from eagle_jax.plan import forecast, slices
from tests.plan import cases

V5E = slices.parse("v5e-4")
EXPERIMENT = dataclasses.replace(cases.experiment("finetune"), steps=0, batch_size=100)


def test_the_slowest_part_is_the_step():
  found = forecast.forecast(EXPERIMENT, V5E, cases.facts(), records=360_000)
  assert found.compute == found.step == 1.0
  assert found.memory == pytest.approx(4e9 / 0.82e12)
  assert found.sending == 600 / 200e9
  assert found.mfu == pytest.approx(150 / 197)
  assert (found.steps, found.hours) == (3600, 1.0)


def test_records_are_eagles_unless_given_and_steps_come_first():
  assert forecast.forecast(EXPERIMENT, V5E, cases.facts()).steps == 18090
  short = dataclasses.replace(EXPERIMENT, steps=7)
  assert forecast.forecast(short, V5E, cases.facts()).steps == 7


def test_recipes_have_the_records_they_were_published_with():
  def records(name):
    return forecast.num_records(cli_config.load(name).experiment)

  assert records("eagle_x5_vicuna_13b:pretrain") == 595_000
  assert records("eagle_x5_yi_34b:pretrain") == 2_500_000
  assert records("eagle_x5_yi_34b:finetune") == 7_000_000
  assert records("eagle_x5_yi_34b:prealign,expert=sam") == 1_809_000


def test_what_goes_along_data_leaves_the_slice():
  two = slices.parse("v5e-4", 2)
  sent = (cases.exchange(axes=("data",), sent=10**9), cases.exchange(sent=10**9))
  found = forecast.forecast(EXPERIMENT, two, cases.facts(sent=sent))
  assert found.sending == 1e10 / 3.125e9
  alone = forecast.forecast(EXPERIMENT, V5E, cases.facts(sent=sent))
  assert alone.sending == 2e10 / 200e9
