import pytest

from eagle_jax.cli import config as cli_config
from eagle_jax.errors import EagleError


def test_a_recipe_is_found_by_name_and_by_path():
  by_name = cli_config.load("debug:pretrain").experiment
  by_path = cli_config.load(f"{cli_config.recipes()['debug']}:pretrain").experiment
  assert by_name == by_path
  assert by_name.stage == "pretrain"


def test_a_name_works_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cli_config.load("debug").experiment.name == "debug-finetune"


def test_overrides_have_the_type_of_their_field_and_are_reported():
  loaded = cli_config.load(
    "debug",
    ["--config.optimizer.peak_lr=1e-4", "--config.seed=7", "--config.data.blank_images=true"],
  )
  assert loaded.experiment.optimizer.peak_lr == 1e-4
  assert loaded.experiment.data.blank_images is True
  assert loaded.changes == {
    "optimizer.peak_lr": (2e-5, 1e-4),
    "seed": (42, 7),
    "data.blank_images": (False, True),
  }
  assert "  seed: 42 -> 7" in loaded.describe_changes()


def test_nothing_changed_is_told():
  assert cli_config.load("debug").describe_changes() == "config as in its file"


def test_a_value_as_in_the_file_is_no_change():
  assert cli_config.load("debug", ["--config.seed=42"]).changes == {}


@pytest.mark.parametrize(
  ("overrides", "expected"),
  [
    (["--config.start_from=a"], ("a",)),
    (["--config.start_from=a,b"], ("a", "b")),
    (["--config.start_from=('a', 'b')"], ("a", "b")),
    (["--config.start_from=a", "--config.start_from=b"], ("a", "b")),
    (["--config.start_from=vision/.*=a,b"], ("vision/.*=a", "b")),
    (["--config.start_from="], ()),
  ],
)
def test_tuples_can_be_written_in_several_ways(overrides, expected):
  assert cli_config.load("debug", overrides).experiment.start_from == expected


def test_no_means_false():
  assert cli_config.load("debug", ["--noconfig.init_missing"]).experiment.init_missing is False


@pytest.mark.parametrize(
  ("name", "overrides", "told"),
  [
    ("eagle_x5_vicuna7b", (), "did you mean 'eagle_x5_vicuna_7b'"),
    ("configs/debgu.py", (), "did you mean 'debug'"),
    ("base", (), "no config 'base'"),
    ("debug:finetuning", (), "did you mean 'finetune'"),
    ("debug:prealign,expert=sma", (), "did you mean 'sam'"),
    ("debug:prealign,expert", (), "options are key=value"),
    ("debug:pretrain,expert=sam", (), "has no option expert; it takes none"),
    ("debug", ["--config.optimizr.peak_lr=1"], "did you mean 'optimizer'"),
    ("debug", ["--config.optimizer.peak_rl=1"], "did you mean 'peak_lr'"),
    ("debug", ["--config.optimizer=1"], "'optimizer' holds fields: "),
    ("debug", ["--config.name.x=1"], "'name' holds no fields"),
    ("debug", ["--config.optimizer.peak_lr=high"], "peak_lr' must be of type float"),
    ("debug", ["--config.batch_size=1.5"], "'batch_size' must be of type int, it is '1.5'"),
    ("debug", ["--config.init_missing=maybe"], "'init_missing' must be of type bool"),
    ("debug", ["--config.model.experts=(1, 2)"], "'model.experts' must be of type str"),
    ("debug", ["--config.batch_size=7", "--config.optimizer.accumulate=2"], "7"),
  ],
)
def test_mistakes_name_the_right_thing(name, overrides, told):
  with pytest.raises(EagleError) as caught:
    cli_config.load(name, overrides)
  assert told in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("def get_config(arg=''):\n  return {}", "must return a ConfigDict"),
    ("x = 1", "has no function get_config"),
    ("def get_config(:", "cannot be imported"),
    ("import no_such_module_anywhere", "cannot be imported"),
  ],
)
def test_a_file_that_is_no_recipe_is_told(tmp_path, text, told):
  path = tmp_path / "own.py"
  path.write_text(text)
  with pytest.raises(EagleError, match=told):
    cli_config.load(str(path))


def test_an_own_recipe_may_start_from_one_of_the_package(tmp_path):
  path = tmp_path / "own.py"
  path.write_text(
    "from configs import debug\n"
    "def get_config(arg='finetune'):\n"
    "  config = debug.get_config(arg)\n"
    "  config.name = 'own'\n"
    "  return config\n"
  )
  experiment = cli_config.load(f"{path}:prealign,expert=eva02").experiment
  assert experiment.name == "own"
  assert experiment.model.experts == ("eva02@demo",)


def test_a_field_no_experiment_has_is_an_error(tmp_path):
  path = tmp_path / "own.py"
  path.write_text(
    "from configs import debug\n"
    "def get_config(arg='finetune'):\n"
    "  config = debug.get_config(arg)\n"
    "  config.optimizer.learning_rate = 1.0\n"
    "  return config\n"
  )
  with pytest.raises(EagleError, match=r"no field 'optimizer\.learning_rate'"):
    cli_config.load(str(path))
