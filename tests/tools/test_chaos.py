"""The tool that kills training: its moments, its comparison, and one kill for real."""

import argparse
import itertools
import json
import shutil
import subprocess
import sys

import pytest

from tools import chaos


def first(seed, count=5):
  return list(itertools.islice(chaos.moments(seed, 10.0), count))


def test_moments_follow_from_the_seed_and_stay_within_a_run():
  assert first(0) == first(0) != first(1)
  assert all(0 <= moment <= 10 for moment in first(3, 100))


def test_what_a_run_does_is_seen_from_its_folder(tmp_path):
  assert chaos.phase(tmp_path, 0) == "starting"
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
  assert chaos.phase(tmp_path, 1) == "updating"
  assert chaos.phase(tmp_path, 2) == "starting"
  (tmp_path / "checkpoints" / "2.saving").mkdir(parents=True)
  assert chaos.phase(tmp_path, 2) == "saving"


def test_what_differs_is_counted_and_named():
  tally = chaos.Tally(starting=1, updating=2, saving=3)
  chaos.compare(tally, {"a": "1", "b": "2"}, {"a": "1", "b": "2"})
  chaos.compare(tally, {"a": "1", "b": "3"}, {"a": "1", "b": "2", "c": ""})
  assert (tally.hits, tally.runs, tally.equal) == (6, 2, 1)
  assert tally.wrong == ["run 1: b, c"]
  options = argparse.Namespace(signal="KILL", seed=7)
  assert (
    chaos.row("pretrain", tally, options) == "| pretrain | KILL | 7 | 1 | 2 | 3 | 2 | 1 | 0.0 |"
  )


def test_an_unknown_stage_is_refused(capsys):
  with pytest.raises(SystemExit) as stopped:
    chaos.main(["--stages=finetune,pretrian"])
  assert stopped.value.code == 2
  assert "no stage pretrian" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_changes_nothing_and_a_flipped_digit_is_seen(tmp_path):
  given = [sys.executable, "tools/chaos.py", "--kills=1", "--stages=finetune", f"--out={tmp_path}"]
  done = subprocess.run(given, cwd=chaos.ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  folder = tmp_path / "finetune-KILL-1-0"
  tally = json.loads(folder.with_suffix(".json").read_text())
  assert tally["runs"] == tally["equal"] >= 1

  shutil.rmtree(folder / "run-0")
  shutil.copytree(folder / "peace-1", folder / "run-0")
  metrics = folder / "run-0" / "metrics.jsonl"
  metrics.write_text(metrics.read_text().replace("1", "2", 1))
  one, other = (chaos.fingerprint(folder / name) for name in ("run-0", "peace-1"))
  assert [name for name in one if one[name] != other[name]] == ["metrics"]
