import pathlib
import shlex

import yaml

from tests.launch.fakes import CANARY, TRAIN, commands
from tests.launch.test_gke import breaches

FLAGS = ("--name=eagle", "--accelerator=tpu-v5litepod-256", "--runtime=r1")
TASK = {
  "name": str,
  "workdir": str,
  "num_nodes": int,
  "resources": {
    "accelerators": str,
    "accelerator_args": {"runtime_version": str, "tpu_vm": bool},
    "use_spot": bool,
    "job_recovery": {"max_restarts_on_errors": int, "recover_on_exit_codes": [int]},
  },
  "setup": str,
  "run": str,
}
"""The fields of SkyPilot's task that are used, as its own schema types them (0.14)."""


def test_a_job_is_launched_as_the_dry_run_says(fakes):
  arguments = ("launch", *FLAGS, "--spot", f"--env-file={fakes.secrets}")
  dry = fakes.run("sky.sh", *arguments, "--dry-run", *TRAIN)
  done = fakes.run("sky.sh", *arguments, *TRAIN)
  assert done.returncode == 0, done.stderr
  assert fakes.calls() == commands(dry.stdout, "sky")
  (call,) = fakes.calls()
  assert f"--secret-file={fakes.secrets}" in call
  text = pathlib.Path(call[-1]).read_text()
  task = yaml.safe_load(text)
  assert breaches(task, TASK) == []
  assert task["resources"]["use_spot"] is True
  assert shlex.split(task["run"]) == ["launch/worker.sh", "exec", *TRAIN]
  recovery = task["resources"]["job_recovery"]
  assert recovery == {"max_restarts_on_errors": 0, "recover_on_exit_codes": [42]}
  assert CANARY not in text + str(call)


def test_logs_and_cancel_know_the_job_by_its_name(fakes):
  assert fakes.run("sky.sh", "logs", "--name=eagle").returncode == 0
  assert fakes.run("sky.sh", "cancel", "--name=eagle").returncode == 0
  named = [["logs", "--name=eagle"], ["cancel", "--name=eagle"]]
  assert [call[2:4] for call in fakes.calls()] == named
