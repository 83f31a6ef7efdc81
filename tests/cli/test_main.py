import subprocess
import sys

import pytest

import eagle_jax
from eagle_jax.cli import main as cli
from eagle_jax.errors import EagleError


def test_every_verb_is_a_module_that_can_run_and_appears_in_the_usage():
  for verb, summary in cli.VERBS.items():
    assert f"{verb} " in cli.usage()
    assert summary in cli.usage()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_goes_to_stdout_and_exits_0(arguments, capsys):
  assert cli.main(arguments) == 0
  out, err = capsys.readouterr()
  assert out.startswith("usage: eagle-jax VERB")
  assert err == ""


def test_version_is_that_of_the_package(capsys):
  assert cli.main(["--version"]) == 0
  assert capsys.readouterr().out == f"eagle-jax {eagle_jax.__version__}\n"


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    (["trian"], "did you mean 'train'?"),
    (["--verison"], "did you mean '--version'?"),
    (["zzz"], "there is no verb 'zzz'. Verbs: train, "),
    (["train", "--confg=debug"], "did you mean '--config'?"),
    (["train", "--config=debug", "--devices=none"], "must be a whole number of at least 1"),
    (["train", "--config=debug", "loose"], "takes no argument 'loose'"),
    (["train", "--config=debug"], "needs --workdir=DIR"),
    (["train"], "required: --config"),
    (["train", "--con=debug"], "has no flag '--con'"),
  ],
)
def test_mistakes_are_one_line_and_exit_2_or_of_train_43(arguments, told, capsys):
  assert cli.main(arguments) == (43 if arguments[0] == "train" else 2)
  out, err = capsys.readouterr()
  assert told in err
  assert err.startswith("eagle-jax: ")
  assert err.count("\n") == 1
  assert out == ""


def test_an_error_may_choose_its_exit_code(monkeypatch, capsys):
  class OtherError(EagleError):
    exit_code = 7

  def fail(arguments):
    raise OtherError("told")

  monkeypatch.setattr(cli, "dispatch", fail)
  assert cli.main(["train"]) == 7
  assert capsys.readouterr().err == "eagle-jax: told\n"


def test_an_interrupt_exits_130(monkeypatch, capsys):
  def interrupted(arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr(cli, "dispatch", interrupted)
  assert cli.main([]) == 130
  assert "interrupted" in capsys.readouterr().err


def test_an_unforeseen_error_keeps_its_traceback(monkeypatch):
  def broken(arguments):
    raise ZeroDivisionError

  monkeypatch.setattr(cli, "dispatch", broken)
  with pytest.raises(ZeroDivisionError):
    cli.main([])


def fresh(code: str) -> subprocess.CompletedProcess:
  """Runs Python code in a process that has imported nothing yet."""
  return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
  "arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in cli.VERBS)]
)
def test_help_and_version_do_not_wait_for_jax(arguments):
  done = fresh(
    "import sys\n"
    "from eagle_jax.cli.main import main\n"
    "try:\n"
    f"  main({arguments!r})\n"
    "except SystemExit as stop:\n"
    "  assert stop.code == 0, stop.code\n"
    "heavy = {'jax', 'flax', 'ml_collections', 'orbax', 'grain', 'PIL'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout


def test_the_module_is_the_command():
  done = subprocess.run(
    [sys.executable, "-m", "eagle_jax", "dmeo"], capture_output=True, text=True, check=False
  )
  assert done.returncode == 2
  assert "did you mean 'demo'?" in done.stderr
  assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error():
  code = "import sys; from eagle_jax.cli.main import main; sys.exit(main(['--help']))"
  done = subprocess.run(
    f'"{sys.executable}" -c "{code}" | true; exit ${{PIPESTATUS[0]}}',
    shell=True,
    executable="/bin/bash",
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0
  assert "Traceback" not in done.stderr
