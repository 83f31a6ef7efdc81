import json
import shutil

import numpy as np
import pytest
from PIL import Image

from eagle_jax import checkpoint
from eagle_jax.cli import config as cli_config
from eagle_jax.cli import generate
from eagle_jax.cli.main import main
from eagle_jax.convert import engine
from eagle_jax.data import tokenize
from eagle_jax.demo import tokenizer as demo_tokenizer
from eagle_jax.errors import EagleError
from eagle_jax.interchange import incoming, upstream
from eagle_jax.model import eagle as eagle_lib
from tests.interchange import foreign

WORDS = [f"the {a} {b} stands by the {c}" for a in "ab" for b in "cde" for c in "fghijk"]


def drawn(eagle):
  """Random parameters by path."""
  rng = np.random.default_rng(0)
  leaves = engine.flatten(eagle_lib.abstract_params(eagle))
  return {path: rng.normal(0, 0.1, leaf.shape).astype(np.float32) for path, leaf in leaves.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A folder with what a stage leaves behind, at random weights."""
  folder = tmp_path_factory.mktemp("trained")
  (folder / "t.model").write_bytes(demo_tokenizer.train(WORDS, vocab=140))
  Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "red.png")
  overrides = [
    "--config.model.experts=clip@demo",
    f"--config.data.tokenizer={folder / 't.model'}",
  ]
  experiment = cli_config.load("debug:finetune", overrides).experiment
  eagle = eagle_lib.build(experiment.model)
  meta = {
    "config": json.loads(experiment.to_json()),
    "tokenizer": tokenize.load(str(folder / "t.model")).digest,
  }
  checkpoint.save_params(str(folder / "checkpoint"), drawn(eagle), meta)
  checkpoint.save_params(str(folder / "foreign"), {"x": np.zeros(1)}, {"kind": "converted"})
  return folder


def ask(folder, *flags, name="checkpoint"):
  required = [f"--checkpoint={folder / name}", "--question=what is it?"]
  return main(["generate", *required, "--max-new-tokens=3", *flags])


def test_a_picture_and_a_question_get_an_answer(trained, capsys):
  assert ask(trained, f"--image={trained / 'red.png'}") == 0
  first = capsys.readouterr().out
  assert first.endswith("\n")
  assert ask(trained, f"--image={trained / 'red.png'}") == 0
  assert capsys.readouterr().out == first


@pytest.mark.parametrize(
  ("flags", "told"),
  [
    (["--image=rde.png"], "image 'rde.png' is not there"),
    (["--tokenizer=other.model"], "tokenizer 'other.model' is not there"),
    (["--config.seed=1"], "name it with --config=NAME"),
    (["--top-p=2"], "top_p must lie in (0, 1], it is 2.0"),
    (["--temperature=hot"], "must be a number, it is 'hot'"),
    (["--max-new-tokens=0"], "at least 1"),
    (["--aspect=wide"], "invalid choice: 'wide'"),
    (["--imgae=x.png"], "did you mean '--image'"),
  ],
)
def test_mistakes_are_one_line(trained, flags, told, capsys):
  assert ask(trained, *flags) == 2
  err = capsys.readouterr().err
  assert told in err
  assert err.count("\n") == 1


def test_a_file_that_is_no_picture_is_told(trained, capsys):
  assert ask(trained, f"--image={trained / 't.model'}") == 2
  assert "Traceback" not in capsys.readouterr().err


def test_a_missing_checkpoint_is_told_with_the_nearest(trained, capsys):
  assert ask(trained, name="checkpiont") == 2
  assert "did you mean 'checkpoint'" in capsys.readouterr().err


def test_a_checkpoint_from_elsewhere_needs_a_config(trained, capsys):
  assert ask(trained, name="foreign") == 2
  assert "use --config=NAME" in capsys.readouterr().err


def test_a_release_answers_as_its_conversion_does(trained, tmp_path, capsys):
  model = cli_config.load("debug", ["--config.model.experts=clip@demo"]).experiment.model
  eagle = eagle_lib.build(model)
  release = tmp_path / "release"
  foreign.save(release / "model.safetensors", foreign.tensors(eagle, "whole"))
  fields = upstream.write(model, eagle.size, dtype="float32")
  (release / "config.json").write_text(json.dumps(fields))
  shutil.copy(trained / "t.model", release / "tokenizer.model")
  incoming.save(incoming.plan(str(release), "whole"), str(tmp_path / "converted"))
  assert ask(tmp_path, f"--image={trained / 'red.png'}", name="release") == 0
  said = capsys.readouterr().out
  flags = (f"--tokenizer={trained / 't.model'}", f"--image={trained / 'red.png'}")
  assert ask(tmp_path, *flags, name="converted") == 0
  assert capsys.readouterr().out == said
  (release / "config.json").unlink()
  assert ask(tmp_path, name="release") == 2
  assert "holds no config.json that says what model it is" in capsys.readouterr().err


def test_another_tokenizer_is_refused(trained, tmp_path):
  other = tmp_path / "other.model"
  other.write_bytes(demo_tokenizer.train(WORDS, vocab=135))
  meta = checkpoint.read_meta(str(trained / "checkpoint"))
  with pytest.raises(EagleError, match="trained with the tokenizer of SHA-256"):
    generate.matching_tokenizer(str(other), meta)
  assert generate.matching_tokenizer(str(trained / "t.model"), meta).vocab_size == 140


def test_a_config_on_the_command_line_wins(trained):
  meta = checkpoint.read_meta(str(trained / "checkpoint"))
  assert cli_config.described(None, (), meta).model.experts == ("clip@demo",)
  assert cli_config.described("debug", ["--config.seed=3"], meta).seed == 3
