import json
import subprocess
import sys

import pytest

from eagle_jax import config
from eagle_jax.cli import joining
from eagle_jax.cli.parser import Parser
from eagle_jax.errors import EagleError
from eagle_jax.sharding import processes

NAMED = ("--coordinator=host:9", "--processes=4", "--process=3")


def read(*arguments):
  parser = Parser("train", "trains")
  parser.add_argument("--workdir")
  joining.add_flags(parser)
  return parser.read(arguments)[0]


def test_a_place_is_three_flags():
  assert joining.place(read(*NAMED)) == processes.Place("host:9", 4, 3)
  assert joining.place(read("--distributed")) is None


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (NAMED[:2], "go together; missing: --process$"),
    (NAMED[2:], "go together; missing: --coordinator, --processes$"),
    (("--coordinator=host", *NAMED[1:]), "must be HOST:PORT, it is 'host'"),
    (("--coordinator=host:70000", *NAMED[1:]), "must be HOST:PORT"),
    (("--coordinator=:9", *NAMED[1:]), "must be HOST:PORT"),
    ((*NAMED[:2], "--process=4"), "one of 0 to 3, as --processes is 4; it is 4"),
    ((*NAMED[:2], "--process=-1"), "one of 0 to 3"),
  ],
)
def test_flags_that_do_not_fit_are_told(arguments, message):
  with pytest.raises(EagleError, match=message):
    joining.place(read(*arguments))


@pytest.fixture
def asked(monkeypatch):
  """What would have been joined with."""
  seen = []
  monkeypatch.setattr(processes, "join", lambda *given, **limits: seen.append((given, limits)))
  return seen


def test_without_flags_nobody_is_joined(asked):
  with joining.joined(read(), config.Experiment(name="small")):
    pass
  assert asked == []


def test_flags_take_the_place_of_detection(asked):
  experiment = config.Experiment(name="small", seed=3)
  with joining.joined(read(*NAMED, "--workdir=w"), experiment):
    pass
  [((place, fields), limits)] = asked
  assert place.index == 3
  assert (fields["--workdir"], fields["config.seed"]) == ("w", "3")
  assert json.loads(fields["config.model.experts"]) == list(experiment.model.experts)
  assert limits == {"timeout": 1800, "heartbeat": 60}


def test_detection_has_the_same_limits(asked, monkeypatch):
  found = processes.Place("host:9", 2, 1, named=False)
  monkeypatch.setattr(processes, "detect", {2400: found}.__getitem__)
  flags = ("--distributed", "--join-timeout=2400", "--heartbeat-timeout=30")
  with joining.joined(read(*flags), config.Experiment(name="small")):
    pass
  [((place, _), limits)] = asked
  assert place is found
  assert limits == {"timeout": 2400, "heartbeat": 30}


LEAVES = """
from unittest import mock
from eagle_jax import config, errors
from eagle_jax.cli import joining
from eagle_jax.sharding import processes
import argparse, atexit, jax
atexit.register(print, "waited for the others")
options = argparse.Namespace(
  coordinator="h:9", processes=2, process=1, workdir="w", join_timeout=5, heartbeat_timeout=1
)
with mock.patch.object(processes, "join"), joining.joined(options, config.Experiment(name="a")):
  print("begun")
  raise {error}
"""


@pytest.mark.parametrize(
  ("error", "code", "told"),
  [
    ("errors.EagleError('no such file')", 43, "eagle-jax: process 1 ends: no such file\n"),
    ("errors.PassingError('disk full')", 1, "eagle-jax: process 1 ends: disk full\n"),
    ("ValueError('unforeseen')", 1, "ValueError: unforeseen"),
    ("jax.errors.JaxRuntimeError('no memory')", 1, "process 1 ends, and no other is missing\n"),
  ],
)
def test_an_error_ends_the_process_at_once(error, code, told):
  command = [sys.executable, "-c", LEAVES.format(error=error)]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout) == (code, "begun\n")
  assert told in done.stderr
