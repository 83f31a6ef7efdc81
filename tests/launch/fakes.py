"""Programs of clouds that do nothing but note how they were called."""

import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("gcloud", "kubectl", "xpk", "sky", "docker", "ssh", "scp", "sleep")
NEEDED = ("tar", "flock", "setsid", "awk")
CANARY = "canary-5d2f70a1c3"
TRAIN = ("--", "train", "--config=debug", "--workdir=/mnt/eagle/run 1")


class Fakes:
  """A copy of launch/ in a small project, and the programs it calls."""

  def __init__(self, folder: pathlib.Path):
    missing = [program for program in NEEDED if not shutil.which(program)]
    if missing:
      pytest.skip(f"launch/ is for Linux; not here: {', '.join(missing)}")
    self.folder, self.project = folder, folder / "project"
    shutil.copytree(ROOT / "launch", self.project / "launch")
    for name in ("eagle_jax", "configs"):
      (self.project / name).mkdir()
      (self.project / name / "__init__.py").touch()
    for name in ("pyproject.toml", "requirements.txt", "requirements.lock", "README.md", "LICENSE"):
      (self.project / name).write_text(name)
    (folder / "rules").mkdir()
    (folder / "bin").mkdir()
    for name in PROGRAMS:
      fake = folder / "bin" / name
      shutil.copy(ROOT / "tests" / "launch" / "fake.sh", fake)
      fake.chmod(0o700)  # else the machine's own program of that name would be found
    self.secrets = folder / "secrets.env"
    self.secrets.write_text(f"HF_TOKEN={CANARY}\n# a comment\n")
    self.secrets.chmod(0o600)

  def answer(self, pattern: str, *answers: str | tuple[str, int, str]) -> None:
    """Calls whose arguments hold `pattern` get the answers in turn, the last for ever.

    An answer is what is printed, or that with an exit code and what is printed as an error.
    """
    rules = self.folder / "rules"
    rule = rules / f"{len(list(rules.iterdir())):02}"
    rule.mkdir()
    (rule / "pattern").write_text(pattern)
    (rule / "next").write_text("0")
    for number, given in enumerate(answers):
      out, code, err = (given, 0, "") if isinstance(given, str) else given
      (rule / str(number)).mkdir()
      for name, text in (("out", out), ("err", err), ("code", str(code))):
        (rule / str(number) / name).write_text(text)

  def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of launch/ to its end."""
    return subprocess.run(
      [str(self.project / "launch" / script), *map(str, arguments)],
      env=self.environment(**env),
      capture_output=True,
      text=True,
      timeout=120,
      check=False,
    )

  def environment(self, **env: str) -> dict[str, str]:
    """What scripts see: the fakes first, an own home, nothing of this machine's setting."""
    path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
    fixed = {"PATH": path, "HOME": str(self.folder), "FAKE": str(self.folder)}
    return fixed | {"EAGLE_POLL_SECONDS": "1"} | env

  def calls(self, *programs: str) -> list[list[str]]:
    """The calls of the programs so far, those of all by default."""
    file = self.folder / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    calls = [shlex.split(line) for line in lines]
    return [call for call in calls if call[0] in (programs or PROGRAMS)]

  def given(self) -> str:
    """All that programs were given on standard input."""
    return (self.folder / "stdin").read_text()


def commands(dry: str, program: str) -> list[list[str]]:
  """The calls of a program as a dry run prints them."""
  calls = [shlex.split(line) for line in dry.splitlines()]
  return [call for call in calls if call[0] == program]
