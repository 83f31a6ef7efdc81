import re

import pytest

from eagle_jax.cli import data
from eagle_jax.cli.main import main


def test_actions_are_listed_and_each_has_its_help(capsys):
  assert main(["data"]) == 0
  out = capsys.readouterr().out
  for action, summary in data.ACTIONS.items():
    assert re.search(rf"^  {action} +{re.escape(summary)}$", out, re.MULTILINE)
    with pytest.raises(SystemExit, match="0"):
      main(["data", action, "--help"])
    assert f"eagle-jax data {action}" in capsys.readouterr().out


def test_an_unknown_action_names_the_nearest(capsys):
  assert main(["data", "biuld"]) == 2
  assert "no action 'biuld', did you mean 'build'?" in capsys.readouterr().err
