"""A folder of plans: what is done stays done."""

import subprocess

import pytest

from eagle_jax.errors import EagleError
from eagle_jax.plan import ledger, process, slices
from eagle_jax.plan.cells import Cell
from tests.plan import cases

CELL = Cell("debug:finetune", "v5e-4")


@pytest.fixture
def compute(tmp_path, monkeypatch):
  """Returns a function that computes the cell with a compiler that answers or raises."""

  def run(answer, key="k"):
    def measure(experiment, wanted, *, kept, limit):
      assert (limit, kept) == (5, str(tmp_path / "programs" / "debug-finetune.v5e-4.gz"))
      if isinstance(answer, Exception):
        raise answer
      return answer

    monkeypatch.setattr(process, "measure", measure)
    return ledger.compute(tmp_path, CELL, cases.experiment(), key=key, limit=5)

  return run


@pytest.mark.parametrize(
  ("answer", "outcome", "reason"),
  [
    (cases.facts(), ledger.FITS, ""),
    (cases.facts(memory={"peak": 2**35}), ledger.TOO_LARGE, ""),
    (cases.facts(refused="Used 28G of 15G hbm", memory={}), ledger.TOO_LARGE, "Used 28G"),
    (EagleError("the compiler ended with -6"), ledger.FAILED, "ended with -6"),
    (subprocess.TimeoutExpired("compiler", 5), ledger.TIMEOUT, "not done after 5 s"),
  ],
)
def test_what_came_of_a_cell_is_written_down(compute, tmp_path, answer, outcome, reason):
  made = compute(answer)
  assert (made.outcome, made.name) == (outcome, "debug:finetune@v5e-4")
  assert reason in made.reason
  assert ledger.read(tmp_path, CELL) == made
  assert not ledger.due(made, "k", retry=False)
  assert ledger.due(made, "k", retry=True) == (not made.answered)
  assert ledger.due(made, "other", retry=False)


def test_an_interrupted_cell_leaves_what_was_known(compute, tmp_path):
  class StopError(KeyboardInterrupt, Exception):
    """Ctrl-C."""

  before = compute(cases.facts())
  with pytest.raises(KeyboardInterrupt):
    compute(StopError(), key="new")
  assert ledger.read(tmp_path, CELL) == before


def test_a_file_that_cannot_be_read_is_as_none(tmp_path):
  (tmp_path / f"{CELL.file}.json").write_text('{"name": "half a pl')
  assert ledger.read(tmp_path, CELL) is None
  assert ledger.due(None, "k", retry=False)


def test_the_key_is_of_all_that_decides_the_program(monkeypatch):
  wanted, experiment = slices.parse("v5e-4"), cases.experiment()
  keys = {
    ledger.key(experiment, wanted, "s"),
    ledger.key(experiment, slices.parse("v5e-4", 2), "s"),
    ledger.key(cases.experiment("finetune", "--config.seed=1"), wanted, "s"),
    ledger.key(experiment, wanted, ledger.source_digest()),
  }
  monkeypatch.setattr(ledger, "versions", lambda: {"jax": "0"})
  keys.add(ledger.key(experiment, wanted, "s"))
  assert len(keys) == 5
