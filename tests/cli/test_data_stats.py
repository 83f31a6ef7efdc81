import json

from eagle_jax.cli.main import main
from tests.datasets import record


def asked(data, *flags):
  """The command for a data set of the tests."""
  given = (f"--images={data.images}", f"--tokenizer={data.tokenizer}", "--template=brief")
  return ["data", "stats", data.records, *given, "--tokens-per-image=4", *flags]


def test_people_and_machines_are_told_the_same(dataset, capsys):
  entries = [record("t", None, "word " * 9, question="Why?"), record("x", "gone.png", "x")]
  data = dataset(4, entries=entries)
  assert main(asked(data, "--max-length=48")) == 0
  said = capsys.readouterr().out
  assert main(asked(data, "--max-length=48", "--json")) == 0
  (known,) = json.loads(capsys.readouterr().out)
  assert (known["good"], known["pictures"], known["bad"]) == (5, 4, {"missing file": 1})
  assert known["images_per_record"] == {"p5": 0, "p50": 1, "p95": 1, "p99": 1, "max": 1}
  assert known["turns_per_record"]["max"] == 2
  assert known["row_length"] == 48
  assert 0 < known["packed_fill"] <= 1
  assert f"{data.records}: 5 good records with 4 pictures, 1 bad" in said
  assert "1 bad: missing file" in said
  assert f"max {known['positions_per_record']['max']}" in said
  assert f"{known['packed_fill']:.1%} packed into {known['packed_rows']} rows" in said


def test_a_source_without_good_records_or_tokenizer_is_told_of(tmp_path, vocabulary, capsys):
  path = tmp_path / "r.jsonl"
  path.write_text("3\n")
  assert main(["data", "stats", str(path), f"--tokenizer={vocabulary}", "--json"]) == 0
  assert json.loads(capsys.readouterr().out)[0]["turns_per_record"] == {}
  assert main(["data", "stats", str(path)]) == 0
  out = capsys.readouterr().out
  assert "1 bad: wrong type" in out
  assert "give --tokenizer=FILE for lengths" in out
