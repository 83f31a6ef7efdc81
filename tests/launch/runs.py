"""An experiment run by `launch/local_cpu.sh` with the real trainer, in processes of its own."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 280  # seconds until what hangs is ended

RECIPE = """
from ml_collections import ConfigDict
VALUES = {values!r}
def get_config(arg=""):
  return ConfigDict(VALUES)
"""


class Runs:
  """Runs of one experiment by the command itself."""

  def __init__(self, folder, experiment):
    self.folder, self.recipe = folder, folder / "recipe.py"
    self.recipe.write_text(RECIPE.format(values=dataclasses.asdict(experiment)))
    program = folder / "eagle-jax"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m eagle_jax "$@"\n')
    program.chmod(0o700)
    self.env = {**os.environ, "EAGLE_JAX": str(program), "EAGLE_LEAVE_SECONDS": "100"}
    self.flags = (f"--config={self.recipe}", "--heartbeat-timeout=10", "--join-timeout=100")

  @contextlib.contextmanager
  def start(self, size, name, *flags):
    """A launcher with all its processes, which do not outlive the block."""
    command = [ROOT / "launch" / "local_cpu.sh", size, f"--workdir={self.folder / name}"]
    with (self.folder / f"{name}.err").open("w") as errors:
      started = subprocess.Popen(
        [*command, *self.flags, *flags],
        env=self.env,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
      )
    try:
      yield started
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
      started.wait()

  def run(self, size, name, *flags):
    """Runs to the end; returns the exit code."""
    with self.start(size, name, *flags) as started:
      return started.wait(LIMIT)

  def lose(self, started, process):
    """Kills one of the processes that a launcher started."""
    for place in pathlib.Path("/proc").glob("[0-9]*"):
      with contextlib.suppress(OSError):
        given = (place / "cmdline").read_bytes().decode().split("\0")
        if os.getpgid(int(place.name)) == started.pid and f"--process={process}" in given:
          os.kill(int(place.name), signal.SIGKILL)

  def log(self, name, process):
    return (self.folder / name / "logs" / f"process_{process}.log").read_text()
