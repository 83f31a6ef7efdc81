from pathlib import Path

import pytest
import tokenizers

from eagle_jax import config
from eagle_jax.demo import pretrained, recipe
from eagle_jax.demo.records import DataSet
from eagle_jax.errors import EagleError
from eagle_jax.interchange import incoming
from eagle_jax.language import LANGUAGE_MODELS
from tests.convert import gguf_files

FOUND = DataSet(Path("data/images"), {"train": Path("data/train.json"), "test": Path("t.json")})
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def test_only_the_backbone_starts_stage_1_from_a_checkpoint():
  folders = recipe.Folders(Path("out"))
  runs = recipe.runs(pretrained.course(folders), folders, FOUND, seed=1)
  for run in runs:
    config.validate(run)
  aligned = [run for run in runs if run.stage == "prealign"]
  assert len(aligned) == 6
  (given,) = [run for run in aligned if not run.init_missing]
  assert given.name == "prealign-dinov2"
  assert given.start_from == ("vision/.*=out/dinov2", "out/language")
  assert {run.model.language for run in aligned} == {"demo"}
  joint = [run for run in runs if run.stage != "prealign"]
  assert {run.model.language for run in joint} == {"smollm2_135m"}
  assert joint[0].start_from[-1] == "out/smollm2"


def test_missing_packages_are_named_before_anything_is_written(tmp_path):
  with pytest.raises(EagleError, match=r"SmolLM2-135M-Instruct\.Q4_1\.gguf .* it is not there"):
    pretrained.run(tmp_path / "out", tmp_path / "packages", seed=0)
  assert not (tmp_path / "out").exists()


def speaker(tmp_path):
  """A converted language model of the demo's size, and the file that it came from."""
  tokens = [*SPECIALS, *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "ab"]
  vocabulary = {
    "model": "gpt2",
    "pre": "smollm",
    "tokens": tokens,
    "token_type": [3] * len(SPECIALS) + [1] * (len(tokens) - len(SPECIALS)),
    "merges": ["a b"],
    "bos_token_id": 1,
    "eos_token_id": 2,
  }
  facts = {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
  file = gguf_files.llama(tmp_path / "x.gguf", LANGUAGE_MODELS["demo"], facts=facts)
  settings = config.Model(
    experts=("clip@demo",), language="demo", image_size=64, grid_side=4, dtype="float32"
  )
  experiment = config.Experiment(name="x", model=settings)
  folder = tmp_path / "made"
  incoming.save(incoming.plan(str(file), "language", experiment), str(folder))
  made = recipe.Speaker(
    language="demo",
    folder=folder,
    tokenizer=folder / incoming.COMPANIONS_FOLDER,
    template="smollm2_brief",
  )
  return made, settings, file


def test_the_language_model_is_asked_and_compared(tmp_path, monkeypatch):
  monkeypatch.setattr(pretrained, "ANSWER_TOKENS", 2)
  alone = pretrained.asked_alone(*speaker(tmp_path))
  assert 0 < alone.difference < 1e-4
  assert [question for question, _ in alone.exchanges] == list(pretrained.QUESTIONS)


def test_another_language_model_than_the_file_is_refused(tmp_path):
  made, settings, _ = speaker(tmp_path)
  theta = {"llama.rope.freq_base": 9e3}
  other = gguf_files.llama(tmp_path / "y.gguf", LANGUAGE_MODELS["demo"], facts=theta)
  with pytest.raises(EagleError, match=r"to within 0\.001, they differ by"):
    pretrained.asked_alone(made, settings, other)
