"""The tool that watches a long run: its lines, its verdict, and a short run for real."""

import os
import subprocess
import sys

import pytest

from tools import chaos, longrun
from tools.longrun import Sample


def rising(memory, threads=30.0):
  """A run of 1000 steps, memory and threads growing so much in 20,000."""
  return [
    Sample(n, (500 + memory * n / 20_000, threads * n / 20_000, 12.0)) for n in range(0, 1001, 10)
  ]


def left(tmp_path, *steps):
  for step in steps:
    (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
  return tmp_path


def test_growth_is_that_of_the_second_half():
  samples = rising(40.0)
  early = [Sample(one.steps, (one.steps * 9.0, 0.0, 0.0)) for one in samples if one.steps < 500]
  memory, threads, files = longrun.growth([*early, *samples[50:]], 1000)
  assert memory == pytest.approx((501, 502, 40))
  assert threads == pytest.approx((0.75, 1.5, 30))
  assert files == pytest.approx((12, 12, 0), abs=1e-6)


def test_too_few_looks_are_refused():
  with pytest.raises(SystemExit, match="ten looks"):
    longrun.growth(rising(0)[:55], 1000)


def test_what_grows_and_what_is_left_is_named(tmp_path):
  still = longrun.growth(rising(0.0, 0.0), 1000)
  assert longrun.complaints(left(tmp_path, 750, 1000), still, 1000) == []
  left(tmp_path, 500)
  (tmp_path / "stacks-0.txt").touch()
  wrong = longrun.complaints(tmp_path, longrun.growth(rising(40.0), 1000), 1000)
  assert wrong == [
    "Resident memory, MB grow by 40 in 20000 steps, 10 or more",
    "Threads grow by 30 in 20000 steps, 1 or more",
    "checkpoints [750, 1000] should be left, there are [500, 750, 1000]",
    "the watchdog has written stacks-0.txt",
  ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_is_seen_once_it_has_logged(tmp_path):
  metrics = tmp_path / "metrics.jsonl"
  assert longrun.look(os.getpid(), metrics) is None
  metrics.write_text("{}\n{}\n")
  found = longrun.look(os.getpid(), metrics)
  assert found.steps == 20
  assert min(found.values) >= 1
  assert longrun.look(2**22 + 1, metrics) is None  # no number of a process is that high


@pytest.mark.parametrize(
  ("given", "said"), [("--steps=100", "multiple of 250"), ("--out=.", "must be a new folder")]
)
def test_wrong_flags_are_refused(given, said, capsys):
  with pytest.raises(SystemExit) as stopped:
    longrun.main([given])
  assert stopped.value.code == 2
  assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_run_is_watched_to_its_end(tmp_path):
  given = [sys.executable, "-m", "tools.longrun", "--steps=500", f"--out={tmp_path / 'out'}"]
  done = subprocess.run(given, cwd=chaos.ROOT, capture_output=True, text=True, check=False)
  steps = sorted(path.name for path in (tmp_path / "out" / "run" / "checkpoints").iterdir())
  assert steps == ["250", "500"], done.stderr
  assert not list((tmp_path / "out" / "run").glob("stacks-*"))
