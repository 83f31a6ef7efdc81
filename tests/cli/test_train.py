import dataclasses
import json
import socket

import pytest

from eagle_jax import config
from eagle_jax.cli.main import main


@dataclasses.dataclass
class Done:
  steps: int = 3
  loss: float = 0.25
  seconds: float = 1.0


@pytest.fixture
def calls(monkeypatch):
  """What the training loop was called with; nothing is trained."""
  from eagle_jax.train import loop

  seen = []

  def run(experiment, workdir, **_asked):
    seen.append((experiment, workdir))
    return Done()

  monkeypatch.setattr(loop, "run", run)
  return seen


@pytest.fixture
def free_port():
  with socket.create_server(("", 0)) as free:
    return free.getsockname()[1]


def test_a_dry_run_prints_the_config_that_would_be_used(capsys):
  assert main(["train", "--config=debug:pretrain", "--config.seed=5", "--dry-run"]) == 0
  printed = config.from_mapping(json.loads(capsys.readouterr().out))
  assert (printed.stage, printed.seed) == ("pretrain", 5)


def test_the_loop_gets_the_experiment_and_the_folder(calls, capsys, tmp_path):
  arguments = ["train", "--config=debug", f"--workdir={tmp_path}", "--config.steps=3"]
  assert main(arguments) == 0
  [(experiment, workdir)] = calls
  assert (experiment.steps, workdir) == (3, str(tmp_path))
  out = capsys.readouterr().out
  assert "steps: 4 -> 3" in out
  assert "3 steps, loss 0.2500" in out


@pytest.mark.parametrize("flag", ["--profile-steps", "--profile_steps"])
def test_updates_to_trace_are_read(monkeypatch, tmp_path, capsys, flag):
  from eagle_jax.train import loop

  asked = []
  monkeypatch.setattr(loop, "run", lambda *_, profile, **__: asked.append(profile) or Done())
  arguments = ["train", "--config=debug", f"--workdir={tmp_path}"]
  assert main([*arguments, f"{flag}=10:13"]) == 0
  assert asked == [(10, 13)]
  assert main([*arguments, f"{flag}=13:10"]) == 43
  assert "FROM:TO with FROM < TO, as 10:13: '13:10'" in capsys.readouterr().err


def test_a_bucket_is_no_folder(calls, capsys):
  assert main(["train", "--config=debug", "--workdir=gs://bucket/run"]) == 43
  assert "mounted file system, it is 'gs://bucket/run'" in capsys.readouterr().err
  assert calls == []


def test_nothing_runs_when_the_config_is_wrong(calls, capsys, tmp_path):
  arguments = ["train", "--config=debug", f"--workdir={tmp_path}", "--config.stage=finetun"]
  assert main(arguments) == 43
  assert "did you mean 'finetune'" in capsys.readouterr().err
  assert calls == []


def test_a_process_that_does_not_come_is_named(calls, capsys, tmp_path, free_port):
  flags = [f"--coordinator=localhost:{free_port}", "--processes=2", "--process=0"]
  arguments = ["train", "--config=debug", f"--workdir={tmp_path}", *flags]
  assert main([*arguments, "--join-timeout=1"]) == 1
  assert "eagle-jax: process 1 of 2 did not come to process 0 (" in capsys.readouterr().err
  assert main(arguments[:-1]) == 43
  assert "go together; missing: --process\n" in capsys.readouterr().err
  assert calls == []
