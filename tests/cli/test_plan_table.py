"""`eagle-jax plan table`, the compiler replaced."""

import pytest

from eagle_jax.cli.main import main
from eagle_jax.errors import EagleError
from eagle_jax.plan import ledger, markdown, process
from tests.plan import cases

CELLS = "--cells=eagle_x5_vicuna_7b:*@v5e-256"


@pytest.fixture
def table(tmp_path, monkeypatch):
  """Returns a function that runs the command and gives the cells that were compiled."""
  monkeypatch.setattr(process, "demand_libtpu", lambda: None)
  monkeypatch.setattr(ledger, "source_digest", lambda: "source")
  compiled = []

  def measure(experiment, wanted, *, kept, limit):
    compiled.append((experiment.stage, wanted.name, experiment.mesh.tensor))
    if experiment.stage == "pretrain":
      raise EagleError("the compiler died")
    return cases.facts()

  monkeypatch.setattr(process, "measure", measure)

  def run(*flags):
    compiled.clear()
    code = main(["plan", "table", f"--out={tmp_path / 'plans'}", CELLS, *flags])
    return code, list(compiled)

  return run


def test_what_is_done_is_not_done_again(table, capsys):
  both = [("pretrain", "v5e-256", 1), ("finetune", "v5e-256", 2)]
  assert table() == (3, both)
  assert "[1/2] eagle_x5_vicuna_7b:pretrain@v5e-256 … failed" in capsys.readouterr().out
  assert table() == (3, [])
  assert table("--retry") == (3, both[:1])
  assert table("--cells=*vicuna_7b:finetune@v5e-256") == (0, [])
  assert table("--list")[1] == []
  assert "fits" in capsys.readouterr().out


def test_the_page_counts_all_cells_whatever_is_chosen(table, tmp_path, capsys):
  page = tmp_path / "page.md"
  page.write_text(f"# Pods\n{markdown.BEGIN}\n{markdown.END}\n")
  table(f"--write={page}")
  text = page.read_text()
  assert text.startswith("# Pods\n")
  assert "1 of 43 cells compiled" in text
  assert "eagle_x5_yi_34b" not in text
  capsys.readouterr()
  assert table("--show")[1] == []
  assert capsys.readouterr().out.startswith("1 of 2 cells compiled")


def test_another_source_is_compiled_again_and_shown_as_old_until_then(table, monkeypatch, capsys):
  table()
  monkeypatch.setattr(ledger, "source_digest", lambda: "changed")
  table("--show")
  assert r"eagle_x5_vicuna_7b:finetune\*" in capsys.readouterr().out
  assert len(table()[1]) == 2


def test_a_page_that_is_not_there_is_told_before_anything_is_compiled(table, tmp_path):
  assert table(f"--write={tmp_path / 'pag.md'}") == (2, [])
