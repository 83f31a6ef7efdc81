"""What to change, with numbers."""

import dataclasses

from eagle_jax.plan import advice as advice_lib
from eagle_jax.plan import forecast, slices
from tests.plan import cases

V5E = slices.parse("v5e-4")
EXPERIMENT = dataclasses.replace(cases.experiment("finetune"), steps=0, batch_size=100)


def advice(experiment=EXPERIMENT, **fields):
  facts = cases.facts(**fields)
  found = forecast.forecast(experiment, V5E, facts)
  return list(advice_lib.advice(experiment, V5E, facts, found=found))


def test_all_well_needs_no_advice():
  assert advice() == []


def test_exchanges_longer_than_products_are_named_with_their_axis():
  (first, second) = advice(sent=(cases.exchange(sent=10**12),))
  assert "most of them along fsdp, take 50 s, products 1 s: 50.0 times the rows" in first
  assert "1e+04 GB are sent where 6e-07 would do" in second


def refused(experiment=EXPERIMENT, **fields):
  return " ".join(advice(experiment, refused="Used 28G of 15G hbm", memory={}, **fields))


def test_what_does_not_fit_is_given_fewer_activations():
  assert "--config.optimizer.accumulate=" not in refused()  # 25 rows a device cannot be halved
  assert "--config.mesh.tensor=2" in refused()
  even = dataclasses.replace(EXPERIMENT, batch_size=64)
  assert "--config.optimizer.accumulate=2 takes activations from about 1.86 GiB to 0.93" in refused(
    even
  )
  lavish = dataclasses.replace(even, model=dataclasses.replace(even.model, remat="none"))
  assert "--config.model.remat=block" in refused(lavish)


def test_what_does_not_fit_is_given_more_devices_for_its_state():
  held = {"trained parameters": 10 * 2**30, "frozen parameters": 2**30, "optimizer": 0, "batch": 1}
  told = refused(held=held, mesh={"data": 2, "fsdp": 2, "tensor": 1, "sequence": 1})
  assert "--config.mesh.fsdp=-1 takes 11.00 GiB to 5.50 GiB a device" in told
  assert "take 11.00 GiB of 16.00 GiB on 2 devices: spread them over 3 or more" in told
  assert "--config.model.frozen_dtype=bfloat16 halves what is not trained: 1.00 GiB to 0.50" in told


def test_gathers_that_wait_are_advised_against():
  (told,) = advice(sent=(cases.exchange(asynchronous=False),))
  assert told == "products hide 0% of the gathers in loops, less than 90%"


def test_gradients_that_are_summed_whole_are_advised_against_where_there_is_room():
  wanted = slices.parse("v5p-128")
  mesh = {"data": 1, "fsdp": 64, "tensor": 1, "sequence": 1}
  facts = cases.facts(mesh=mesh)
  (told,) = advice_lib.advice(
    EXPERIMENT, wanted, facts, found=forecast.forecast(EXPERIMENT, wanted, facts)
  )
  assert told.startswith("gradients are summed whole along fsdp=64: --config.mesh.data=2 lets")
  assert told.endswith("for 7.45 GiB of 95.00 GiB")
  for other in (
    {"mesh": mesh | {"data": 2, "fsdp": 32}},
    {"memory": facts.memory | {"peak": 94 * 2**30}},
    {"mesh": mesh | {"fsdp": 32, "tensor": 2}},
  ):
    changed = dataclasses.replace(facts, **other)
    found = forecast.forecast(EXPERIMENT, wanted, changed)
    assert not list(advice_lib.advice(EXPERIMENT, wanted, changed, found=found)), other
