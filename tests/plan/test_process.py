"""The process that holds the TPU's compiler."""

import subprocess

import pytest

from eagle_jax.errors import EagleError
from eagle_jax.plan import process, slices
from tests.plan import cases

V5E = slices.parse("v5e-16")


def test_without_libtpu_the_extra_is_named(monkeypatch):
  experiment = cases.experiment()
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(EagleError, match=r"pip install 'eagle_jax\[plan\]'"):
    process.measure(experiment, V5E)


@pytest.fixture
def child(monkeypatch):
  """Returns a function that sets what the process does in place of compiling."""
  monkeypatch.setattr(process, "demand_libtpu", lambda: None)

  def behave(code, stderr="", written=""):
    def run(command, *, env, **options):
      assert (env["JAX_PLATFORMS"], options["timeout"]) == ("cpu", None)
      assert env["TPU_ACCELERATOR_TYPE"] == "v5litepod-16"
      with open(command[-1], "w") as file:
        file.write(written)
      return subprocess.CompletedProcess(command, code, stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)

  return behave


def test_facts_come_back(child):
  child(0, written=cases.facts().to_json())
  assert process.measure(cases.experiment(), V5E) == cases.facts()


def test_a_mistake_comes_back_as_it_was_said(child):
  child(EagleError.exit_code, stderr="noise of the compiler", written="4 rows, 16 shards")
  with pytest.raises(EagleError, match="4 rows, 16 shards"):
    process.measure(cases.experiment(), V5E)


def test_a_crash_shows_the_last_lines(child):
  child(-6, stderr="\n".join(f"line {n}" for n in range(100)))
  with pytest.raises(EagleError, match=r"ended with -6:\nline 80\n"):
    process.measure(cases.experiment(), V5E)
