"""The benchmark of conversion runs on a model small enough for a test, and reports its figures."""

import json

from bench import convert


def test_a_small_model_is_measured(tmp_path, capsys):
  arguments = ["--config=debug", "--config.model.experts=clip@demo", "--rounds=1", "--layers=1"]
  assert convert.main([*arguments, f"--folder={tmp_path}"]) == 0
  *turns, summary = map(json.loads, capsys.readouterr().out.splitlines())
  assert [turn["what"] for turn in turns] == ["cp", "convert"]
  assert summary["convert_over_cp"] > 0
  # Its own model is the whole one, of which the files hold less.
  assert summary["model_bytes"] > summary["bytes"] > 0
  assert summary["peak_anon_bytes"] == turns[1]["peak_anon_bytes"] > 0
  assert [path.name for path in tmp_path.iterdir()] == ["source"]
