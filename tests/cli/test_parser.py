import argparse

import pytest

from eagle_jax.cli.parser import Parser, existing, positive
from eagle_jax.errors import EagleError


def example() -> Parser:
  parser = Parser("verb", "does something")
  parser.add_argument("--config")
  parser.add_argument("--count", type=positive, default=1)
  return parser


def test_flags_are_read():
  options, overrides = example().read(["--config", "a", "--count=3"])
  assert (options.config, options.count, overrides) == ("a", 3, [])


def test_overrides_are_kept_in_order_and_unread():
  options, overrides = example().read(
    ["--config.a.b=1", "--config=x", "--config.c", "2", "--noconfig.d", "--config.e=f=g"],
    overrides=True,
  )
  assert options.config == "x"
  assert overrides == ["--config.a.b=1", "--config.c=2", "--noconfig.d", "--config.e=f=g"]


def test_overrides_are_unknown_flags_where_the_verb_has_none():
  with pytest.raises(EagleError, match=r"has no flag '--config\.a', did you mean '--config'"):
    example().read(["--config.a=1"])


def test_an_override_without_value_is_told():
  with pytest.raises(EagleError, match=r"--config\.a needs a value"):
    example().read(["--config.a"], overrides=True)


def test_an_unknown_flag_is_told_before_what_is_missing():
  parser = example()
  parser.add_argument("--needed", required=True)
  with pytest.raises(EagleError, match="has no flag '--cuont', did you mean '--count'"):
    parser.read(["--cuont=3"])
  with pytest.raises(EagleError, match="required: --needed"):
    parser.read(["--count=3"])


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", ""])
def test_positive_refuses(text):
  with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
    positive(text)


def test_existing_returns_what_is_there(tmp_path):
  assert existing(str(tmp_path), what="folder") == str(tmp_path)


def test_existing_names_the_nearest_in_the_deepest_folder_that_exists(tmp_path):
  (tmp_path / "pictures").mkdir()
  with pytest.raises(EagleError, match="has no 'pictrues', did you mean 'pictures'") as caught:
    existing(str(tmp_path / "pictrues" / "a.png"), what="image")
  assert str(tmp_path) in str(caught.value)


def test_existing_looks_in_the_present_folder_for_a_bare_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "cat.png").touch()
  with pytest.raises(EagleError, match=r"image 'cta.png' is not there.*did you mean 'cat.png'"):
    existing("cta.png", what="image")
