"""The script that runs on a host, with a program in place of the trainer."""

import signal
import subprocess
import time

import pytest

from tests.launch.fakes import CANARY

RUN = ("--", "train", "--workdir=w")
TRAINER = """#!/bin/bash
trap 'echo term >>~/seen; exit 42' TERM
echo "$$ $HF_TOKEN $*" >>~/seen
while [[ ! -e ~/end ]]; do /bin/sleep 0.05; done
exit "$(<~/end)"
"""


@pytest.fixture
def host(fakes):
  """A host whose trainer runs until the file `end` says how it ends."""
  (fakes.folder / "bin" / "eagle-jax").write_text(TRAINER)
  (fakes.folder / "bin" / "eagle-jax").chmod(0o700)
  (fakes.folder / "bin" / "sleep").unlink()
  fakes.secrets.rename(fakes.folder / "eagle.env")
  yield fakes
  fakes.run("worker.sh", "stop", EAGLE_GRACE_SECONDS="1")


def seen(host):
  file = host.folder / "seen"
  return file.read_text().splitlines() if file.exists() else []


def until(holds, limit=60):
  deadline = time.monotonic() + limit
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def state(host):
  return host.run("worker.sh", "status").stdout.split(maxsplit=2)[2].strip()


@pytest.mark.parametrize(("code", "passed_on"), [(0, 0), (42, 42), (43, 43), (2, 43), (134, 134)])
def test_exec_ends_as_the_trainer_does(host, code, passed_on):
  (host.folder / "end").write_text(str(code))
  done = host.run("worker.sh", "exec", *RUN)
  assert done.returncode == passed_on, done.stderr
  assert seen(host)[0].split()[1:] == [CANARY, "train", "--workdir=w", "--distributed"]
  assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_signal_reaches_the_trainer_and_its_code_comes_back(host, sent):
  # What is ignored when a shell starts it cannot trap, and a suite in the background ignores INT.
  command = ["env", "--default-signal=INT", host.project / "launch" / "worker.sh", "exec", *RUN]
  with subprocess.Popen(command, env=host.environment()) as process:
    try:
      until(lambda: seen(host))
      process.send_signal(sent)
      assert process.wait(60) == 42
    finally:
      process.kill()
  assert seen(host)[1:] == ["term"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("exec", "--slices=2", *RUN), "MEGASCALE_NUM_SLICES is ''"),
    (("exec", "--slice=2", *RUN), "has no flag '--slice=2'"),
    (("exec",), "what is to run follows --"),
  ],
)
def test_a_mistake_on_a_host_is_one_that_no_launcher_repeats(host, arguments, message):
  done = host.run("worker.sh", *arguments, GCE_METADATA_IP="127.0.0.1:1")
  assert done.returncode == 43
  assert message in done.stderr
  assert not seen(host)


def test_a_readable_file_of_secrets_is_refused(host):
  (host.folder / "eagle.env").chmod(0o644)
  done = host.run("worker.sh", "exec", *RUN)
  assert done.returncode == 43
  assert "has mode 644" in done.stderr


def test_started_once_it_outlives_its_starter_and_says_how_it_ended(host):
  assert state(host) == "idle"
  for _ in range(2):
    assert host.run("worker.sh", "start", *RUN).stdout.split()[-1] == "running"
  until(lambda: seen(host))
  assert state(host) == "running"
  assert len(seen(host)) == 1
  (host.folder / "end").write_text("43")
  until(lambda: state(host) == "exited 43")
  log = host.run("worker.sh", "logs").stdout
  assert "eagle-jax train --workdir=w" in log
  assert CANARY not in log


def test_stop_lets_the_trainer_save_and_kill_leaves_a_trace(host):
  host.run("worker.sh", "start", *RUN)
  until(lambda: seen(host))
  assert host.run("worker.sh", "stop").stdout.endswith("exited 42\n")
  assert seen(host)[1:] == ["term"]
  host.run("worker.sh", "start", *RUN)
  until(lambda: len(seen(host)) == 3)
  pid = int((host.folder / "eagle_run" / "pid").read_text())
  trainer = int(seen(host)[2].split()[0])
  subprocess.run(["kill", "-KILL", str(pid)], check=True)
  assert state(host) == "running"  # the trainer does, without its supervisor
  subprocess.run(["kill", "-KILL", str(trainer)], check=True)
  until(lambda: state(host) == "gone")


def test_setup_installs_once_and_tells_source_and_packages_in_one_word(host):
  python = host.folder / "bin" / "python3.11"
  python.write_text(
    "#!/bin/bash\n"
    "case $* in\n"
    '  "-c "*) exit 0 ;;\n'
    '  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;\n'
    '  *" install "*) echo "$*" >>~/installs ;;\n'
    "  *freeze*) echo numpy==1 ;;\n"
    "esac\n"
  )
  python.chmod(0o700)
  told = [host.run("worker.sh", "setup", PYTHON="python3.11").stdout for _ in range(2)]
  (host.project / "configs" / "other.py").touch()
  told.append(host.run("worker.sh", "setup", PYTHON="python3.11").stdout)
  assert [line.split()[2] for line in told] == ["setup"] * 3
  first, second, third = (line.split()[3] for line in told)
  assert first == second != third
  (install,) = (host.folder / "installs").read_text().splitlines()
  assert f"--requirement {host.project}/requirements.lock" in install
  assert install.endswith(f"--editable {host.project}[tpu]")
