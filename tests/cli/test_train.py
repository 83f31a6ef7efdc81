import dataclasses
import json

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

  def run(experiment, workdir):
    seen.append((experiment, workdir))
    return Done()

  monkeypatch.setattr(loop, "run", run)
  return seen


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


def test_a_bucket_is_no_folder(calls, capsys):
  assert main(["train", "--config=debug", "--workdir=gs://bucket/run"]) == 2
  assert "mounted file system, it is 'gs://bucket/run'" in capsys.readouterr().err
  assert calls == []


def test_nothing_runs_when_the_config_is_wrong(calls, capsys, tmp_path):
  arguments = ["train", "--config=debug", f"--workdir={tmp_path}", "--config.stage=finetun"]
  assert main(arguments) == 2
  assert "did you mean 'finetune'" in capsys.readouterr().err
  assert calls == []
