import subprocess
import sys

import jax
import pytest

from eagle_jax.cli import devices
from eagle_jax.cli.parser import Parser
from eagle_jax.errors import EagleError


def test_none_leaves_the_machine_as_it_is():
  before = jax.device_count()
  devices.start(None)
  assert jax.device_count() == before


def test_the_flag_takes_a_count():
  parser = Parser("verb", "does something")
  devices.add_flag(parser)
  options, _ = parser.read(["--devices=3"])
  assert options.devices == 3
  with pytest.raises(EagleError, match="at least 1"):
    parser.read(["--devices=0"])


def test_devices_are_emulated_in_a_fresh_process():
  code = "from eagle_jax.cli import devices; devices.start(3); import jax; print(jax.devices())"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.lower().count("cpu") == 3
