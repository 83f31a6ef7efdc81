import pathlib
import types

import pytest

from eagle_jax import demo
from eagle_jax.cli import devices
from eagle_jax.cli.main import main


@pytest.fixture
def calls(monkeypatch):
  """What the demonstration was asked for; nothing of it runs."""
  seen = []

  def run(out, *, seed):
    seen.append(("run", out, seed))
    return out / "report.html"

  def make(*, seed):
    seen.append(("language", seed))

  monkeypatch.setattr(demo, "runner", types.SimpleNamespace(run=run), raising=False)
  monkeypatch.setattr(demo, "language", types.SimpleNamespace(make=make), raising=False)
  monkeypatch.setattr(devices, "start", lambda count: seen.append(("devices", count)))
  return seen


def test_the_demo_runs_on_eight_emulated_devices_and_says_where_the_report_is(calls, capsys):
  assert main(["demo"]) == 0
  assert calls == [("devices", 8), ("run", pathlib.Path("runs/demo"), 0)]
  assert capsys.readouterr().out.endswith("/runs/demo/report.html\n")


def test_folder_seed_and_devices_can_be_chosen(calls, tmp_path):
  assert main(["demo", f"--out={tmp_path}", "--seed=2", "--devices=4"]) == 0
  assert calls == [("devices", 4), ("run", tmp_path, 2)]


def test_the_language_model_alone(calls):
  assert main(["demo", "--language-model", "--seed=1"]) == 0
  assert calls == [("devices", 8), ("language", 1)]


def test_a_wrong_flag_starts_nothing(calls, capsys):
  assert main(["demo", "--sed=1"]) == 2
  assert "did you mean '--seed'" in capsys.readouterr().err
  assert calls == []
