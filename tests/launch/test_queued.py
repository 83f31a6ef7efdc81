"""The loop that gets machines, trains, and gets them again; tpu_vm.sh differs in its flags."""

import pytest

from tests.launch.fakes import CANARY, TRAIN, commands

FLAGS = ("--name=eagle", "--zone=z1", "--accelerator=v5litepod-16", "--runtime=r1", "--spot")
ABSENT = ("", 1, "ERROR: NOT_FOUND: Resource 'eagle' was not found")
DESCRIBE, CREATE = " describe ", "queued-resources create"
STATUS, SETUP, START = "worker.sh status;", "worker.sh setup", "worker.sh start"
IDLE, RUNNING, DONE = (f"eagle-worker h0 {state}" for state in ("idle", "running", "exited 0"))
INSTALLED = "eagle-worker h0 setup 1f\neagle-worker h1 setup 1f"


def ended(*codes):
  return "\n".join(f"eagle-worker h{host} exited {code}" for host, code in enumerate(codes))


def verbs(fakes):
  """What was done with the machines, in order, without looking at them."""
  names = {"create": "create", "delete": "delete", "scp": "copy"}
  steps = []
  for call in fakes.calls("gcloud"):
    last = call[-1]
    step = next((v for k, v in (("setup", "setup"), ("start --", "start")) if k in last), None)
    step = "stop" if last.endswith("worker.sh stop") else step or names.get(call[4])
    steps += [step] if step else []
  return steps


def test_trained_at_once_as_the_dry_run_says(fakes):
  fakes.answer(DESCRIBE, ABSENT, "ACTIVE")
  fakes.answer(STATUS, IDLE, DONE)
  fakes.answer(SETUP, INSTALLED)
  arguments = ("train", *FLAGS, "--slices=2", f"--env-file={fakes.secrets}")
  dry = fakes.run("queued.sh", *arguments, "--dry-run", *TRAIN)
  assert dry.returncode == 0, dry.stderr
  assert not fakes.calls()
  done = fakes.run("queued.sh", *arguments, *TRAIN)
  assert done.returncode == 0, done.stderr
  assert fakes.calls("gcloud") == commands(dry.stdout, "gcloud")
  assert verbs(fakes) == ["create", "copy", "copy", "setup", "start"]
  create = next(call for call in fakes.calls() if "create" in call)
  assert {"--node-count=2", "--spot", "--runtime-version=r1", "--zone=z1"} <= set(create)
  start = next(call for call in fakes.calls() if "worker.sh start" in call[-1])
  assert {"--worker=all", "--node=all"} <= set(start)
  assert start[-1].endswith(
    "worker.sh start --slices=2 -- train --config=debug --workdir=/mnt/eagle/run\\ 1"
  )
  assert CANARY not in str(fakes.calls()) + done.stdout + done.stderr


def test_preempted_twice_then_done(fakes):
  lives = (
    (ABSENT, "WAITING_FOR_RESOURCES", "ACTIVE", "SUSPENDING", "SUSPENDED"),
    (ABSENT, "ACTIVE", "SUSPENDED"),
    (ABSENT, "ACTIVE"),
  )
  fakes.answer(DESCRIBE, *(state for life in lives for state in life))
  gone = ("", 255, "ssh: connection refused")
  fakes.answer(STATUS, IDLE, RUNNING, gone, IDLE, ended(42, 42), IDLE, RUNNING, DONE)
  fakes.answer(SETUP, INSTALLED)
  done = fakes.run("queued.sh", "train", *FLAGS, *TRAIN)
  assert done.returncode == 0, done.stderr
  life = ["create", "copy", "setup", "start"]
  assert verbs(fakes) == [*life, "delete", *life, "delete", *life]
  delete = next(call for call in fakes.calls() if "delete" in call)
  assert delete[-2:] == ["--force", "--quiet"]


def test_saved_on_machines_that_stay_starts_again_without_new_ones(fakes):
  fakes.answer(DESCRIBE, "ACTIVE")
  shut = ("", 255, "ssh: not up yet")
  fakes.answer(STATUS, shut, shut, IDLE, ended(42, 42), ended(42, 42), DONE)
  fakes.answer(SETUP, INSTALLED)
  assert fakes.run("queued.sh", "train", *FLAGS, *TRAIN).returncode == 0
  assert verbs(fakes) == ["copy", "setup", "start"] * 2


@pytest.mark.parametrize(
  ("codes", "result", "starts"),
  [((1, 43), 43, 1), ((134, 0), 1, 3)],
  ids=["mistake", "crash"],
)
def test_how_the_trainer_ends_decides_whether_it_starts_again(fakes, codes, result, starts):
  fakes.answer(DESCRIBE, "ACTIVE")
  fakes.answer(STATUS, IDLE, ended(*codes))
  fakes.answer(SETUP, INSTALLED)
  done = fakes.run("queued.sh", "train", *FLAGS, "--restarts=2", *TRAIN)
  assert done.returncode == result
  assert verbs(fakes).count("start") == starts


def test_a_launcher_that_comes_back_only_waits(fakes):
  fakes.answer(DESCRIBE, "ACTIVE")
  fakes.answer(STATUS, RUNNING, RUNNING, DONE)
  assert fakes.run("queued.sh", "train", *FLAGS, *TRAIN).returncode == 0
  assert verbs(fakes) == []


def test_workers_started_by_half_are_stopped_and_all_started(fakes):
  fakes.answer(DESCRIBE, "ACTIVE")
  fakes.answer(STATUS, f"{RUNNING}\n{IDLE}", DONE)
  fakes.answer(SETUP, INSTALLED)
  assert fakes.run("queued.sh", "train", *FLAGS, *TRAIN).returncode == 0
  assert verbs(fakes) == ["stop", "copy", "setup", "start"]


def test_workers_that_do_not_leave_after_a_crash_are_stopped(fakes):
  fakes.answer(DESCRIBE, "ACTIVE")
  half = f"{RUNNING}\neagle-worker h1 gone"
  fakes.answer(STATUS, IDLE, half, half, half, ended(42, 137), IDLE, DONE)
  fakes.answer(SETUP, INSTALLED)
  done = fakes.run("queued.sh", "train", *FLAGS, *TRAIN, EAGLE_PATIENCE="2")
  assert done.returncode == 0, done.stderr
  assert verbs(fakes) == ["copy", "setup", "start", "stop", "copy", "setup", "start"]


def test_a_quota_is_asked_for_again_ever_more_slowly_and_not_for_ever(fakes):
  fakes.answer(DESCRIBE, ABSENT)
  fakes.answer(CREATE, ("", 1, "ERROR: RESOURCE_EXHAUSTED: Quota limit exceeded"))
  done = fakes.run("queued.sh", "train", *FLAGS, "--attempts=7", *TRAIN)
  assert done.returncode == 2
  assert "no machines after 7 requests" in done.stderr
  assert verbs(fakes) == ["create"] * 7
  assert [call[1] for call in fakes.calls("sleep")] == ["1", "2", "4", "8", "16", "16"]


def test_what_no_waiting_mends_is_not_asked_for_again(fakes):
  fakes.answer(DESCRIBE, ABSENT)
  fakes.answer(CREATE, ("", 1, "ERROR: PERMISSION_DENIED: no"))
  done = fakes.run("queued.sh", "train", *FLAGS, *TRAIN)
  assert (done.returncode, verbs(fakes)) == (2, ["create"])
  assert "PERMISSION_DENIED" in done.stderr


def test_a_state_that_cannot_be_asked_is_asked_again_but_not_for_ever(fakes):
  fakes.answer(DESCRIBE, ("", 1, "ERROR: network is unreachable"))
  done = fakes.run("queued.sh", "train", *FLAGS, "--attempts=3", *TRAIN)
  assert done.returncode == 2
  assert "cannot tell the state" in done.stderr
  assert [call[0] for call in fakes.calls()] == ["gcloud", "sleep", "gcloud", "sleep", "gcloud"]


def test_workers_with_unequal_packages_do_not_start(fakes):
  fakes.answer(DESCRIBE, "ACTIVE")
  fakes.answer(STATUS, IDLE)
  fakes.answer(SETUP, "eagle-worker h0 setup 1f\neagle-worker h1 setup 2e")
  done = fakes.run("queued.sh", "train", *FLAGS, *TRAIN)
  assert done.returncode == 2
  assert "the workers differ" in done.stderr
  assert "eagle-worker h1 setup 2e" in done.stderr
  assert "start" not in verbs(fakes)


def test_with_workers_that_are_there_a_preemption_and_two_runs(fakes):
  """No answer is made up here: the worker's own script runs, twice on each of two hosts."""
  for host in ("h0", "h1"):
    python = fakes.folder / "hosts" / host / "eagle_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\n[[ $1 == -m ]] || exec python3 "$@"\n')
    python.chmod(0o700)
    trainer = python.with_name("eagle-jax")
    trainer.write_text(
      '#!/bin/bash\necho "$HF_TOKEN $*" >>~/seen\n(($(wc -l <~/seen) == 1)) && exit 42\nexit 0\n'
    )
    trainer.chmod(0o700)
  fakes.answer(DESCRIBE, "ACTIVE")
  done = fakes.run("queued.sh", "train", *FLAGS, f"--env-file={fakes.secrets}", *TRAIN)
  assert done.returncode == 0, done.stderr
  assert verbs(fakes) == ["copy", "copy", "setup", "start"] * 2
  for host in (fakes.folder / "hosts").iterdir():
    line = f"{CANARY} train --config=debug --workdir=/mnt/eagle/run 1 --distributed"
    assert (host / "seen").read_text().splitlines() == [line] * 2
    assert (host / "eagle.env").stat().st_mode & 0o777 == 0o600
    assert CANARY not in (host / "eagle_run" / "log").read_text()
  assert CANARY not in str(fakes.calls())
