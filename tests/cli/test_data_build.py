import json

import pytest

from eagle_jax.cli.main import main
from eagle_jax.data import sources
from eagle_jax.data.records import Limits


def test_records_become_shards_or_a_tfds_data_set(dataset, tmp_path, capsys):
  data = dataset(4, broken=[1])
  given = ["data", "build", data.records, f"--images={data.images}", "--bad-budget=0.25"]
  shards, other = tmp_path / "shards", tmp_path / "tfds"
  assert main([*given, f"--to={shards}", "--licence=CC0", "--shard-mb=1"]) == 0
  said = capsys.readouterr()
  assert said.out == f"{shards}: 3 records, 0.1 MB in 1 shards; left out: unreadable image (1)\n"
  assert "4/4" in said.err
  assert json.loads((shards / "manifest.json").read_text())["licence"] == "CC0"
  assert main([*given, f"--to={other}", "--format=tfds"]) == 0
  place = capsys.readouterr().out.splitlines()[-1].removesuffix(" is a source to train on")
  found = [sources.open_source(str(path), "", Limits(1)) for path in (shards, place)]
  assert [[s[n].id for n in range(len(s))] for s in found] == [["0", "2", "3"]] * 2


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ([], "needs --to=DIR"),
    (["--to=x", "--format=tfrecord"], "no format that data build writes is called 'tfrecord'"),
    (["--to=x", "--bad-budget=2"], "must be a number from 0 to 1, it is '2'"),
    (["--to=x", "--licens=CC0"], "did you mean '--licence'"),
    (["--to=x"], "unreadable image (1)"),
    (["--to=x", "--images="], "data.images must name the folder"),
  ],
)
def test_mistakes_are_said_in_one_line(dataset, tmp_path, monkeypatch, capsys, flags, message):
  data = dataset(2, broken=[1])
  monkeypatch.chdir(tmp_path)
  assert main(["data", "build", data.records, f"--images={data.images}", *flags]) == 2
  assert message in capsys.readouterr().err


def test_questions_without_answers_are_kept_on_request(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "q.jsonl").write_text('{"conversations": [{"from": "human", "value": "Why?"}]}')
  assert main(["data", "build", "q.jsonl", "--to=a"]) == 2
  assert "no answer (1)" in capsys.readouterr().err
  assert main(["data", "build", "q.jsonl", "--to=b", "--questions"]) == 0
