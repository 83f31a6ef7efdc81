"""Several processes on this machine, with a program in place of the trainer."""

import shlex
import signal
import subprocess

import pytest

from tests.launch.test_worker import until

TRAINER = """#!/bin/bash
echo "process $SLURM_PROCID of $SLURM_NTASKS at $JAX_COORDINATOR_ADDRESS: $*"
trap 'echo term; exit 42' TERM
touch "$HOME/up$SLURM_PROCID"
while [[ ! -e $HOME/end$SLURM_PROCID ]]; do /bin/sleep 0.05; done
exit "$(<"$HOME/end$SLURM_PROCID")"
"""


@pytest.fixture
def local(fakes):
  trainer = fakes.folder / "eagle-jax"
  trainer.write_text(TRAINER)
  trainer.chmod(0o700)
  (fakes.folder / "bin" / "sleep").unlink()
  return fakes


def run(local, *arguments, ends=(), **env):
  for number, code in enumerate(ends):
    if code is not None:
      (local.folder / f"end{number}").write_text(str(code))
  given = {"EAGLE_JAX": str(local.folder / "eagle-jax"), **env}
  return local.run("local_cpu.sh", *arguments, **given)


def logs(local):
  files = sorted((local.folder / "w" / "logs").iterdir())
  return {file.name: file.read_text() for file in files}


def test_every_process_has_its_number_and_its_log(local):
  done = run(local, "3x4", "--config=debug", f"--workdir={local.folder}/w", ends=(0, 0, 0))
  assert done.returncode == 0, done.stderr
  texts = logs(local)
  assert list(texts) == ["process_0.log", "process_1.log", "process_2.log"]
  for number, text in enumerate(texts.values()):
    assert text.startswith(f"process {number} of 3 at 127.0.0.1:")
    assert "train --devices=4 --distributed --config=debug" in text
  assert done.stdout == texts["process_0.log"]


@pytest.mark.parametrize(
  ("ends", "code", "leave"),
  [((0, 134, 0), 134, "60"), ((None, 1), 1, "0")],
  ids=["the others leave", "the others do not"],
)
def test_ends_as_the_first_process_that_failed(local, ends, code, leave):
  count = len(ends)
  done = run(
    local, f"{count}x1", f"--workdir={local.folder}/w", ends=ends, EAGLE_LEAVE_SECONDS=leave
  )
  assert done.returncode == code
  assert f"process 1 ended with {code}; its log: {local.folder}/w/logs/process_1.log" in done.stderr
  assert ("process 0 did not leave: ended" in done.stderr) == (leave == "0")


def test_a_signal_reaches_every_process(local):
  command = [local.project / "launch" / "local_cpu.sh", "2x1", f"--workdir={local.folder}/w"]
  env = local.environment(EAGLE_JAX=str(local.folder / "eagle-jax"))
  with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
    try:
      until(lambda: all((local.folder / f"up{number}").exists() for number in range(2)))
      process.send_signal(signal.SIGTERM)
      assert process.wait(60) == 42
    finally:
      process.kill()
  assert [text.splitlines()[-1] for text in logs(local).values()] == ["term", "term"]


def test_one_process_is_the_command_itself(local):
  (local.folder / "end").write_text("3")
  done = run(local, "8", "--config=debug", "--dry-run")
  assert done.returncode == 3
  assert done.stdout.endswith(": train --devices=8 --config=debug --dry-run\n")


def test_the_dry_run_prints_what_would_run(local):
  dry = run(local, "--dry-run", "2x4", "--config=debug", "--workdir", "w 1")
  lines = [shlex.split(line) for line in dry.stdout.splitlines()]
  assert [words[0] for words in lines] == ["env", "env"]
  assert all(words[-2:] == [f">w 1/logs/process_{n}.log", "2>&1"] for n, words in enumerate(lines))
  one = run(local, "--dry-run", "2", "--config=debug")
  assert shlex.split(one.stdout)[1:] == ["train", "--devices=2", "--config=debug"]
  assert not list(local.folder.glob("up*"))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("x2", "--config=debug"), "usage: launch/local_cpu.sh"),
    (("2x2",), "usage: launch/local_cpu.sh"),
    (("2x2", "--config=debug"), "several processes need --workdir=DIR on this machine"),
    (("2x2", "--workdir=gs://b/r"), "several processes need --workdir=DIR on this machine"),
  ],
)
def test_a_mistake_is_told(local, arguments, message):
  done = run(local, *arguments)
  assert done.returncode == 2
  assert message in done.stderr
