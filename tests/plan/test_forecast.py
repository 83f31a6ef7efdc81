"""From facts to seconds, hours and advice."""

import dataclasses

import pytest

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


def advice(experiment=EXPERIMENT, **fields):
  facts = cases.facts(**fields)
  found = forecast.forecast(experiment, V5E, facts)
  return list(forecast.advice(experiment, V5E, facts, found=found))


def test_all_well_needs_no_advice():
  assert advice() == []


def test_exchanges_longer_than_products_are_named_with_their_axis():
  (first, second) = advice(sent=(cases.exchange(sent=10**12),))
  assert "along fsdp take longer" in first
  assert "1e+04 GB are sent where 6e-07 would do" in second


def refused(experiment=EXPERIMENT, **fields):
  return " ".join(advice(experiment, refused="Used 28G of 15G hbm", memory={}, **fields))


def test_what_does_not_fit_is_given_fewer_activations():
  assert "--config.optimizer.accumulate=" not in refused()  # 25 rows a device cannot be halved
  assert "--config.mesh.tensor=2" in refused()
  even = dataclasses.replace(EXPERIMENT, batch_size=64)
  assert "--config.optimizer.accumulate=2 halves" in refused(even)
  lavish = dataclasses.replace(even, model=dataclasses.replace(even.model, remat="none"))
  assert "--config.model.remat=block" in refused(lavish)


def test_what_does_not_fit_is_given_more_devices_for_its_state():
  held = {"trained parameters": 10 * 2**30, "frozen parameters": 2**30, "optimizer": 0, "batch": 1}
  told = refused(held=held, mesh={"data": 2, "fsdp": 2, "tensor": 1, "sequence": 1})
  assert "--config.mesh.data=1" in told
  assert "take 11.0 of 16 GiB on 2 devices: spread them over 3 or more" in told
  assert "--config.model.frozen_dtype=bfloat16" in told
