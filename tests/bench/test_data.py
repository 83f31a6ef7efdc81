"""The benchmark of the data runs on a few small pictures, and reports its figures."""

import json

import numpy as np

from bench import data


def test_a_few_pictures_are_measured(tmp_path, capsys, vocabulary, monkeypatch):
  monkeypatch.setattr(data, "SIZES", ((40, 30), (30, 40), (64, 64)))
  folder = tmp_path / "made"
  arguments = [f"--folder={folder}", f"--tokenizer={vocabulary}", "--side=32", "--rounds=1"]
  assert data.main([*arguments, "--pictures=4", "--records=24", "--count=8"]) == 0
  lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
  assert [line["what"] for line in lines] == [
    *("host_resize", "device_resize"),
    *("tokens", "tokens", "array_record"),
  ]
  assert [line.get("beside") for line in lines[2:4]] == ["host_resize", "device_resize"]
  for line in lines:
    assert line["ratio"] > 0
    assert line["bound"] > 0
    assert line["turns"] == 1
  (shard,) = (folder / "shards").glob("*.array_record*")
  assert lines[-1]["bytes"] == shard.stat().st_size
  # What is there already is taken as it is.
  made = shard.stat().st_mtime_ns
  assert data.main([*arguments, "--count=8"]) == 0
  assert shard.stat().st_mtime_ns == made


def test_a_scene_is_the_same_again_and_smoother_than_noise():
  made = data.scene(64, 48, 3)
  assert made.shape == (48, 64, 3)
  np.testing.assert_array_equal(made, data.scene(64, 48, 3))
  steps = np.abs(np.diff(made.astype(int), axis=1))
  assert 2 < steps.mean() < 40  # noise of all levels has 85
  assert made.std() > 20
