"""The columns of the tables."""

import dataclasses

from eagle_jax.plan import columns
from tests.plan import cases

EXPERIMENT = dataclasses.replace(cases.experiment(), steps=3600)


def shown(table, **fields):
  planned = columns.Planned.of("v5e-4", EXPERIMENT, cases.facts(**fields))
  return {name: show(planned) for name, show in table}


def test_memory_is_in_gib_and_held_against_what_it_should_be():
  assert shown(columns.MEMORY) == {
    "Mesh": "fsdp 4",
    "Parameters": "0.93",
    "Optimizer": "1.86",
    "Temporaries": "0.93",
    "Peak": "4.66",
    "Analytic": "5.59",
    "Peak / analytic": "0.83",
    "Fits": "yes, of 16",
  }


def test_work_is_held_against_the_ideal():
  large = cases.exchange(kind="all-gather", sent=10**8, times=2, axes=("fsdp", "tensor"))
  found = shown(
    columns.WORK,
    sent=(large, cases.exchange(sent=10**9, parameter=False)),
    ideal={"fsdp": 5 * 10**9, "tensor": 0},
  )
  assert found["TFLOP a step × compiled"] == "600 × 1.31"
  assert found["GB sent / ideal"] == "fsdp 10 / 5; fsdp+tensor 0.2 / 0"
  assert found["Needless"] == "1: 10 GB"
  assert (found["Step, s"], found["MFU"], found["Hours"]) == ("1", "76%", "1")


def test_what_does_not_fit_has_no_program():
  memory, work = (
    shown(table, refused="Used 28G of 15G hbm", memory={}, sent=(), device_flops=0)
    for table in (columns.MEMORY, columns.WORK)
  )
  assert (memory["Fits"], memory["Peak"]) == ("**no**, of 16", columns.NONE)
  assert (work["TFLOP a step × compiled"], work["Step, s"]) == ("600", columns.NONE)
