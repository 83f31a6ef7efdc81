import shlex

import pytest

from tests.launch.fakes import CANARY, TRAIN, commands
from tests.launch.test_queued import ABSENT, DESCRIBE, DONE, IDLE, INSTALLED, SETUP, STATUS, verbs

FLAGS = ("--name=eagle", "--zone=z1", "--project=p1", "--accelerator=v4-128", "--runtime=r1")


def test_a_preempted_tpu_vm_is_deleted_created_and_trained_on(fakes):
  fakes.answer("tpu-vm delete", ("", 1, "ERROR: an operation is under way"), "")
  fakes.answer(DESCRIBE, "PREEMPTED", "PREEMPTED", ABSENT, "CREATING", "READY")
  fakes.answer(STATUS, IDLE, DONE)
  fakes.answer(SETUP, INSTALLED)
  done = fakes.run("tpu_vm.sh", "train", *FLAGS, "--spot", *TRAIN)
  assert done.returncode == 0, done.stderr
  assert verbs(fakes) == ["delete", "delete", "create", "copy", "setup", "start"]
  for call in fakes.calls("gcloud"):
    assert call[1:4] == ["compute", "tpus", "tpu-vm"]
    assert {"--zone=z1", "--project=p1"} <= set(call)
  create = next(call for call in fakes.calls() if "create" in call)
  assert shlex.join(create[4:]) == (
    "create eagle --zone=z1 --project=p1 --accelerator-type=v4-128 --version=r1 --spot"
  )


@pytest.mark.parametrize(
  ("verb", "more", "ending"),
  [
    ("status", (), "idle; fi"),
    ("start", TRAIN, "--workdir=/mnt/eagle/run\\ 1"),
    ("logs", ("--worker=3",), "worker.sh logs"),
    ("stop", (), "worker.sh stop"),
    ("delete", (), "--quiet"),
  ],
)
def test_each_step_is_a_verb_and_is_done_as_its_dry_run_says(fakes, verb, more, ending):
  arguments = (verb, *FLAGS[:3])
  dry = fakes.run("tpu_vm.sh", *arguments, "--dry-run", *more)
  done = fakes.run("tpu_vm.sh", *arguments, *more)
  assert (dry.returncode, done.returncode) == (0, 0), dry.stderr + done.stderr
  (call,) = fakes.calls("gcloud")
  assert [call] == commands(dry.stdout, "gcloud")
  assert call[-1].endswith(ending)
  assert (f"--worker={3 if verb == 'logs' else 'all'}" in call) == (verb != "delete")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("train",), "--name is missing"),
    (("trains", *FLAGS), "has no verb 'trains'. Verbs: train create"),
    (("train", "--nam=x"), "has no flag '--nam=x'. Flags: --accelerator --attempts"),
    (("train", "--$(touch pwned)=x"), "has no flag"),
    (("train", "--zone"), "--zone needs a value"),
    (("train", "--spot=yes"), "--spot is a switch"),
    (("train", "--name=Eagle;", *FLAGS[1:]), "--name must look like"),
    (("train", *FLAGS, "--attempts=x[$(touch pwned)]"), "--attempts must look like"),
    (("train", *FLAGS, "--slices=2", *TRAIN), "a TPU VM is one slice, --slices is 2"),
    (("create", *FLAGS[:3]), "--accelerator is missing"),
    (("train", *FLAGS), "what is to run follows --"),
    (("train", *FLAGS, "train"), "takes no argument 'train' here"),
    (("train", *FLAGS, "--", "--config=debug"), "comes a verb of eagle-jax"),
    (("train", *FLAGS, "--", "train", "--config=debug"), "train needs --workdir=DIR"),
    (("train", *FLAGS, "--env-file=absent", *TRAIN), "'absent' cannot be read"),
    (("train", *FLAGS, *TRAIN, f"--config.name={CANARY}"), "holds the value of WANDB_API_KEY"),
  ],
)
def test_a_mistake_is_told_before_anything_is_done(fakes, arguments, message):
  done = fakes.run("tpu_vm.sh", *arguments, WANDB_API_KEY=CANARY)
  assert (done.returncode, done.stdout) == (2, "")
  assert message in done.stderr
  assert done.stderr.startswith("tpu_vm.sh: ")
  assert not fakes.calls()
  assert not list(fakes.project.rglob("pwned"))


def test_a_file_of_secrets_must_be_its_owners_alone_and_hold_lines(fakes):
  arguments = ("train", *FLAGS, f"--env-file={fakes.secrets}", *TRAIN)
  fakes.secrets.chmod(0o640)
  assert "has mode 640: chmod 600 it" in fakes.run("tpu_vm.sh", *arguments).stderr
  fakes.secrets.chmod(0o600)
  fakes.secrets.write_text("HF_TOKEN=x\nexport WANDB_API_KEY=y\n")
  assert "NAME=value; line 2 is none" in fakes.run("tpu_vm.sh", *arguments).stderr
  assert not fakes.calls()
