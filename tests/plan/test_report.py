"""The plan as people read it."""

from eagle_jax.plan import forecast, report, slices
from tests.plan import cases

V5E = slices.parse("v5e-4")


def text(**fields):
  experiment, facts = cases.experiment("finetune"), cases.facts(**fields)
  found = forecast.forecast(experiment, V5E, facts)
  return "\n".join([report.heading(experiment, V5E), *report.lines(V5E, facts, found)])


def rows(printed):
  return {line[:24].strip(): line[24:].split() for line in printed.splitlines()}


def test_every_table_is_there():
  printed = text(sent=(cases.exchange(), cases.exchange(asynchronous=False)))
  found = rows(printed)
  assert printed.startswith("debug-finetune: finetune, 8 rows a step, on v5e-4 (4 chips, v5e:2x2)")
  assert found["optimizer"] == ["1.863"]
  assert found["peak"] == ["4.657", "of", "16,", "0.83", "×", "that"]
  assert found["work of a block"] == ["0.931"]
  assert found["as the model is written"] == ["600", "150"]
  assert found["fsdp"] == ["1.2e-06", "6e-07", "2.00"]
  assert found["model FLOPs utilisation"][0] == "76.1%"
  assert "recomputed, padded or done by several: +31.3%" in printed
  assert "that products hide: 50%" in printed
  assert "bf16[4,8] forward language/layers" in printed


def test_what_should_not_be_sent_is_listed():
  mesh = {"data": 1, "fsdp": 4, "tensor": 1, "sequence": 1}
  whole = cases.exchange(kind="all-reduce", sent=2**21, shape="f32[64,64]")
  printed = text(sent=(whole, cases.exchange(sent=2**22, parameter=False)), mesh=mesh)
  assert "gather of activations: 0.0419 GB, bf16[4,8] forward language/layers" in printed
  assert "sum of a whole parameter: 0.021 GB, f32[64,64]" in printed


def test_what_does_not_fit_ends_with_the_compilers_words():
  printed = text(refused="Used 28G of 15G hbm", memory={})
  assert printed.endswith("does not fit: Used 28G of 15G hbm")
