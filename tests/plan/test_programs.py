"""Compiling a step once."""

import jax
import pytest

from eagle_jax.plan import abstract, programs
from eagle_jax.train import step
from tests.plan import cases


class Lowered:
  """A step that compiles to an error."""

  def __init__(self, message, text="module"):
    self.message, self.text = message, text

  def as_text(self):
    return self.text

  def compile(self):
    raise jax.errors.JaxRuntimeError(self.message)


@pytest.fixture(scope="module")
def stage():
  return abstract.stage(cases.experiment(), jax.devices())


@pytest.fixture
def lower(monkeypatch):
  """Returns a function that sets what the step is lowered to."""
  return lambda *given: monkeypatch.setattr(step, "lower_step", lambda *_: Lowered(*given))


FULL = (
  "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 28.84G of 15.75G hbm. "
  "Exceeded hbm capacity by 13.09G.\n\nTotal hbm usage"
)
EARLY = "RESOURCE_EXHAUSTED: temporaries (518.46G) exceed available HBM (95.74G).\nAllocations:"


@pytest.mark.parametrize(
  ("message", "told"),
  [
    (FULL, "Used 28.84G of 15.75G hbm. Exceeded hbm capacity by 13.09G."),
    (EARLY, "RESOURCE_EXHAUSTED: temporaries (518.46G) exceed available HBM (95.74G)."),
  ],
)
def test_a_program_that_does_not_fit_says_how_much_is_missing(stage, lower, message, told):
  lower(message)
  made = programs.compiled(stage)
  assert (made.refused, made.text, made.memory) == (told, "", {})


@pytest.mark.parametrize("message", ["INTERNAL: broken", FULL.replace("hbm", "vmem")])
def test_another_error_of_the_compiler_is_not_taken_for_want_of_memory(stage, lower, message):
  lower(message)
  with pytest.raises(jax.errors.JaxRuntimeError, match=message[:12]):
    programs.compiled(stage)


def test_the_same_step_is_not_compiled_again(stage, lower, tmp_path):
  kept = str(tmp_path / "programs" / "step.gz")
  lower(FULL)
  made = programs.compiled(stage, kept)
  lower("INTERNAL: the compiler was started")
  assert programs.compiled(stage, kept) == made
  lower("INTERNAL: the compiler was started", "another module")
  with pytest.raises(jax.errors.JaxRuntimeError, match="started"):
    programs.compiled(stage, kept)


def test_half_a_file_is_compiled_again(stage, lower, tmp_path):
  kept = tmp_path / "step.gz"
  lower(FULL)
  programs.compiled(stage, str(kept))
  kept.write_bytes(kept.read_bytes()[:40])
  assert programs.compiled(stage, str(kept)).refused


def test_versions_are_of_what_is_installed():
  assert programs.versions()["jax"] == jax.__version__
