"""`eagle-jax plan`, the compiler replaced."""

import json

import pytest

from eagle_jax.cli.main import main
from eagle_jax.plan import process
from tests.plan import cases

COMMAND = ["plan", "--config=debug:finetune", "--slice=v5e-4"]


@pytest.fixture
def facts(monkeypatch):
  """Returns a function that sets the facts."""

  def give(**fields):
    found = cases.facts(**fields)
    monkeypatch.setattr(process, "measure", lambda experiment, wanted, program: found)

  return give


def test_the_plan_is_printed(facts, capsys):
  facts()
  assert main(COMMAND) == 0
  assert "step at the roofline    1 s" in capsys.readouterr().out


def test_json_holds_facts_forecast_and_advice(facts, capsys):
  facts()
  assert main([*COMMAND, "--json", "--records=80", "--config.steps=0"]) == 0
  plan = json.loads(capsys.readouterr().out)
  assert plan["forecast"]["steps"] == 10
  assert plan["sent"][0]["axes"] == ["fsdp"]
  assert (plan["slice"], plan["advice"]) == ("v5e-4", [])


def test_what_does_not_fit_is_advised_and_has_its_own_exit_code(facts, capsys):
  facts(refused="Used 28G of 15G hbm", memory={})
  assert main(COMMAND) == 3
  assert "advice: " in capsys.readouterr().out


def test_an_unknown_slice_is_one_line(capsys):
  assert main(["plan", "--config=debug", "--slice=v5f-4"]) == 2
  assert "did you mean" in capsys.readouterr().err
