import pytest

from eagle_jax.cli import config as cli_config
from eagle_jax.cli import data_source
from eagle_jax.errors import EagleError


def asked(*arguments):
  """What a command line asks for."""
  return data_source.asked(*data_source.parser("stats", "").read(arguments, overrides=True))


def test_a_source_needs_no_recipe(vocabulary):
  found = asked("r.json", "--images=i", f"--tokenizer={vocabulary}", "--questions")
  assert (found.data.records, found.data.images) == ("r.json", "i")
  assert found.data.max_images == data_source.MAX_IMAGES
  assert (found.image_size, found.tokens_per_image) == (1024, 1024)
  assert not found.answered


def test_a_recipe_says_how_and_flags_and_source_replace_its_fields():
  name = "eagle_x5_vicuna_7b:finetune"
  model = cli_config.load(name).experiment.model
  given = (f"--config={name}", "--config.data.tokenizer=", "--config.data.template=plain")
  found = asked("r.json", *given, "--max-length=7", "--image-size=9")
  assert found.data.records == "r.json"
  assert (found.data.template, found.data.max_length) == ("plain", 7)
  assert (found.image_size, found.tokens_per_image) == (9, model.grid_side**2)
  assert found.answered
  assert asked(*given, "--config.data.records=s.json").data.records == "s.json"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((), "name a SOURCE of records"),
    (("--config=debug:finetune",), "or with --config=NAME a recipe that names one"),
    (("r.json", "--tokenizer=gone.model"), "tokenizer 'gone.model' is not there"),
    (("r.json", "--max-length=0"), "must be a whole number of at least 1"),
  ],
)
def test_mistakes_are_said(arguments, message):
  with pytest.raises(EagleError, match=message):
    asked(*arguments)
