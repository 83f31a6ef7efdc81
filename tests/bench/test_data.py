"""The benchmark of the data runs on a few small pictures, and reports its figures."""

import json

import numpy as np

from bench import data


def test_a_few_pictures_are_measured(tmp_path, capsys, vocabulary, monkeypatch):
  monkeypatch.setattr(data, "SIZES", ((40, 30), (30, 40), (64, 64)))
  folder = tmp_path / "made"
  arguments = [f"--folder={folder}", f"--tokenizer={vocabulary}", "--side=32", "--rounds=1"]
  arguments += ["--workers=0", "--count=8"]
  assert data.main([*arguments, "--pictures=4", "--records=24"]) == 0
  lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
  assert [(line["what"], line["workers"], line.get("beside")) for line in lines] == [
    *(("array_record", 0, None), ("host_resize", 0, None), ("device_resize", 0, None)),
    *(("canvases", 0, None), ("tokens", 0, "host_resize"), ("tokens", 0, "device_resize")),
  ]
  for line in lines:
    assert line["bound"] > 0
    assert line["pass"] == (line["ratio"] >= line["goal"] > 0)
    assert line["turns"] == 1
  for line in lines[2:4]:
    assert line["arrays_ratio"] > 0
  (shard,) = (folder / "shards").glob("*.array_record*")
  assert lines[0]["bytes"] == shard.stat().st_size
  # What is there already is taken as it is.
  made = shard.stat().st_mtime_ns
  assert data.main(arguments) == 0
  assert shard.stat().st_mtime_ns == made


def test_a_scene_is_the_same_again_and_smoother_than_noise():
  made = data.scene(64, 48, 3)
  assert made.shape == (48, 64, 3)
  np.testing.assert_array_equal(made, data.scene(64, 48, 3))
  steps = np.abs(np.diff(made.astype(int), axis=1))
  assert 2 < steps.mean() < 40  # noise of all levels has 85
  assert made.std() > 20
