"""Several processes on this machine, with a program in place of the trainer, and with it."""

import re
import shlex
import signal
import socket
import subprocess

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eagle_jax import checkpoint, config
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import loop, metrics
from tests.launch.runs import LIMIT, ROOT, Runs
from tests.launch.test_worker import until
from tests.train import small_run

TRAINER = """#!/bin/bash
number=''
for flag in "$@"; do
  case $flag in --process=*) number=${flag#*=} ;; esac
done
echo "process $number: $*"
trap 'echo term; exit 42' TERM
touch "$HOME/up$number"
while [[ ! -e $HOME/end$number ]]; do /bin/sleep 0.05; done
exit "$(<"$HOME/end$number")"
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
    given = text.splitlines()[0].split()
    assert given[:2] == ["process", f"{number}:"]
    assert given[2:4] == ["train", "--devices=4"]
    assert given[4].startswith("--coordinator=127.0.0.1:")
    assert given[5:8] == ["--processes=3", f"--process={number}", "--config=debug"]
  assert len({text.split("--coordinator=")[1].split()[0] for text in texts.values()}) == 1
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
  told = f"{code} (SIGABRT)" if code == 134 else code
  assert f"process 1 ended with {told}; its log: {local.folder}/w/logs/process_1.log" in done.stderr
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
  assert [words[5] for words in lines] == ["--process=0", "--process=1"]
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


STEPS, EVERY = 8, 2
OTHER_MESH = ("--config.mesh.data=1", "--config.mesh.fsdp=4", "--config.mesh.tensor=1")


@pytest.fixture
def experiment(dataset):
  return small_run.experiment(
    dataset(20),
    batch_size=8,
    steps=STEPS,
    mesh=config.Mesh(data=2, fsdp=2, tensor=2),
    checkpoints=config.Checkpoints(every=EVERY, keep=STEPS),
  )


def losses(folder):
  rows = metrics.read(str(folder))
  assert [row["step"] for row in rows] == list(range(1, STEPS + 1))  # each written once
  return np.asarray([row["loss"] for row in rows])  # [steps]


@pytest.mark.slow
def test_two_lose_one_and_train_on_elsewhere_what_one_process_trains(tmp_path, experiment):
  runs, two = Runs(tmp_path, experiment), tmp_path / "two"
  with runs.start("2x4", "two") as started:
    saved = two / "checkpoints" / str(EVERY)
    until(lambda: saved.is_dir() or started.poll() is not None, LIMIT)
    runs.lose(started, 1)
    assert started.wait(LIMIT) == 128 + signal.SIGKILL
  said = (tmp_path / "two.err").read_text()
  assert "process 1 ended with 137 (SIGKILL)" in said
  assert "did not leave" not in said  # the other one left of itself, and says whom it lost
  assert "unhealthy (stopped sending heartbeats):\n1\n" in runs.log("two", 0)

  assert runs.run("2x2", "two", *OTHER_MESH) == 0, runs.log("two", 0)
  loop.run(experiment, str(tmp_path / "one"))
  np.testing.assert_allclose(losses(two), losses(tmp_path / "one"), rtol=1e-6)

  # What four devices of two processes saved, on eight of one.
  stored = {path: array[...] for path, array in checkpoint.open_params(str(two)).items()}
  mesh = make_mesh(config.Mesh(fsdp=8), jax.devices())
  cut = {0: NamedSharding(mesh, PartitionSpec("fsdp"))}
  abstract = {
    path: jax.ShapeDtypeStruct(
      array.shape,
      array.dtype,
      sharding=cut.get(array.shape[0] % 8, NamedSharding(mesh, PartitionSpec())),
    )
    for path, array in stored.items()
  }
  loaded = checkpoint.load_params(str(two), abstract)
  for path, array in stored.items():
    np.testing.assert_array_equal(array, loaded[path], err_msg=path)


def test_processes_of_two_configs_do_not_begin(tmp_path, experiment):
  runs = Runs(tmp_path, experiment)
  with socket.create_server(("", 0)) as free:
    port = free.getsockname()[1]
  command = [runs.env["EAGLE_JAX"], "train", *runs.flags, f"--workdir={tmp_path / 'run'}"]
  command += [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
  started = [
    subprocess.Popen(
      [*command, f"--process={index}", f"--config.seed={index}"],
      env=runs.env,
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in (0, 1)
  ]
  said = [each.communicate(timeout=LIMIT)[1] for each in started]
  assert [each.returncode for each in started] == [43, 43]
  assert all(re.search(r"process 1 \(.*\) has config.seed 1, process 0 .* has 0", s) for s in said)
  assert not (tmp_path / "run").exists()
