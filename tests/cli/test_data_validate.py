import html
import json

import pytest

from eagle_jax.cli import data_validate
from eagle_jax.cli.main import main
from eagle_jax.data.records import Fault
from tests.datasets import record


@pytest.fixture
def asked(dataset):
  entries = [record("x", "<b>\x1b[31m.png", "x"), record("0", "0.png", "x")]
  data = dataset(5, broken=[1], entries=entries, template="v1")
  given = (f"--images={data.images}", f"--tokenizer={data.tokenizer}")
  return ["data", "validate", data.records, *given, "--tokens-per-image=4", "--image-size=8"]


def test_bad_data_is_told_of_by_reason_and_exit_code(asked, tmp_path, capsys):
  out = tmp_path / "new" / "report.html"
  assert main([*asked, f"--out={out}"]) == 1
  said = capsys.readouterr()
  assert "bad: 2 of 7 records are unusable (28.5714%), the budget is 0.1000%" in said.out
  assert "1 of the good have the id of one before them" in said.out
  assert "1 bad: unreadable image" in said.out
  assert "\x1b" not in said.out
  assert "validating" in said.err
  told = json.loads(out.with_suffix(".json").read_text())
  assert (told["ok"], told["records"], told["good"], told["bad"]) == (False, 7, 5, 2)
  (source,) = told["sources"]
  assert source["duplicate_ids"] == 1
  assert source["bad"] == {"missing file": 1, "unreadable image": 1}
  assert {fault["reason"] for fault in source["first_bad"]} == set(source["bad"])
  assert sum(count for _, _, count in source["positions_histogram"]) == 5
  page = out.read_text()
  assert html.escape("'<b>") in page
  assert "<b>\x1b" not in page
  assert 'class="bars"' in page


def test_a_budget_makes_it_good(asked, capsys):
  assert main([*asked, "--bad-budget=0.5"]) == 0
  assert "good: 2 of 7 records are unusable" in capsys.readouterr().out


def test_nothing_usable_is_bad_whatever_the_budget(tmp_path, capsys):
  (tmp_path / "r.jsonl").write_text("3\n")
  assert main(["data", "validate", str(tmp_path / "r.jsonl"), "--bad-budget=1"]) == 1
  assert "there is no usable record" in capsys.readouterr().out


def test_the_report_is_json_or_html(asked, capsys):
  assert main([*asked, "--out=report.txt"]) == 2
  assert "--out names a .json or .html file, 'report.txt' is none" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_said_in_one_line(asked, tmp_path, capsys):
  (tmp_path / "file").write_text("")
  assert main([*asked, f"--out={tmp_path}/file/report.json"]) == 2
  assert "report.json cannot be written: " in capsys.readouterr().err


def test_a_bad_record_takes_one_line():
  fault = Fault("a:1", "missing file", "x\n\x1b[31m\u202e y")
  assert data_validate.named(fault) == "a:1: missing file: x\\n\\x1b[31m\\u202e y"
