"""Measuring a program: for emulated CPU devices, and for TPUs where libtpu is installed."""

import importlib.util

import jax
import pytest

from eagle_jax.errors import EagleError
from eagle_jax.plan import abstract, compiled, process, programs, slices
from eagle_jax.plan.compiled import Facts
from tests.plan import cases


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  path = tmp_path_factory.mktemp("program") / "step.txt"
  facts = compiled.measure(cases.experiment("pretrain"), jax.devices(), program=str(path))
  return facts, path.read_text()


def check(facts, devices):
  """What must hold of the facts whatever the compiler."""
  assert facts.mesh["fsdp"] == devices
  assert not facts.refused
  state = sum(facts.held.values())
  assert facts.memory["peak"] > facts.memory["arguments"] >= state
  # Blocks are recomputed, and no product is left out.
  assert 1.0 < facts.device_flops * devices / facts.model_flops < 2.0
  assert {axis for one in facts.sent for axis in one.axes} == {"fsdp"}
  layers = [one.times for one in facts.sent if "language/layers" in one.place]
  assert max(layers) == 3  # blocks of the demo's language model
  assert facts.ideal["fsdp"] > 0
  assert facts.ideal["tensor"] == 0
  assert any(one.parameter for one in facts.sent)


def test_a_step_for_cpus(measured):
  facts, text = measured
  check(facts, 8)
  assert facts.memory["arguments"] < 1.05 * sum(facts.held.values())  # a TPU pads small arrays
  assert text.startswith("HloModule")
  assert Facts.from_json(facts.to_json()) == facts


def test_a_step_for_sixteen_chips_that_are_not_there():
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed: pip install 'eagle_jax[plan]'")
  experiment = cases.experiment("pretrain", "--config.batch_size=16")
  facts = process.measure(experiment, slices.parse("v5e-16"))
  check(facts, 16)
  assert facts.memory["peak"] < slices.CHIPS["v5e"].memory


def test_a_program_that_does_not_fit_is_told_by_its_trace_alone(monkeypatch):
  def refuse(stage, kept):
    return programs.Program(digest="d", text="", memory={}, refused="Used 2G of 1G", seconds=1.0)

  monkeypatch.setattr(programs, "compiled", refuse)
  monkeypatch.setattr(abstract, "model_flops", lambda stage: 1)
  facts = compiled.measure(cases.experiment(), jax.devices())
  assert facts.refused == "Used 2G of 1G"
  assert (facts.sent, facts.memory, facts.device_flops) == ((), {}, 0)
  assert facts.held == abstract.held(abstract.stage(cases.experiment(), jax.devices()))
  assert facts.analytic > 2 * sum(facts.held.values()) / 3


def test_a_mistake_is_written_where_the_result_would_be(tmp_path, monkeypatch):
  monkeypatch.setattr(compiled, "topology", lambda wanted: jax.devices())
  experiment = cases.experiment("finetune", "--config.batch_size=4")
  request, result = tmp_path / "request.json", tmp_path / "result.json"
  request.write_text(process.request(experiment, slices.parse("v5e-8")))
  assert compiled.main(str(request), str(result)) == EagleError.exit_code
  assert "4 rows, 8 shards" in result.read_text()
