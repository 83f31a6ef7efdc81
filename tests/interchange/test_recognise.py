"""Which part of a model foreign files are, when nobody says it."""

import json

import numpy as np
import pytest

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.interchange import parts, recognise, upstream
from eagle_jax.language.weights import gguf
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.vision import EXPERTS
from tests.convert import keys
from tests.interchange import foreign

MODEL = config.Model(experts=("clip@demo", "sam@demo"), language="demo", image_size=64, grid_side=4)
EXPERIMENT = config.Experiment(name="test", model=MODEL)


@pytest.fixture(scope="module")
def eagle():
  return eagle_lib.build(MODEL)


@pytest.fixture(scope="module")
def released():
  """The size of a model of every expert there is, so that none is taken for another."""
  return eagle_lib.build(config.Model(experts=tuple(EXPERTS))).size


@pytest.mark.parametrize("file", keys.NAMES)
def test_every_published_file_is_one_part(file, released):
  expected = "whole" if file in keys.MERGED else file.split("_")[0]
  assert recognise.part_of(released, keys.load(file).tensors, place="x") == expected


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    (["model.embed_tokens.weight", "lm_head.weight"], "language"),
    ([gguf.MARK], "language"),
    (["model.mm_projector.0.weight", "model.mm_projector.0.bias"], "projector"),
  ],
)
def test_language_models_and_projectors_alone_are_known(names, expected, released):
  assert recognise.part_of(released, names, place="x") == expected


@pytest.mark.parametrize(
  ("names", "told"),
  [
    (["a", "b"], "it is none; its 2 names begin with 'a', 'b'"),
    ([], "it is none, it is empty"),
    (
      ["vision_model.pre_layrnorm.weight", "layers.0.attn.rel_pos_h"],
      "it is these 2: clip, sam",
    ),
    # Of an expert that this model does not have.
    (["blocks.0.attn.q_bias"], "its 1 names begin with 'blocks.0.attn.q_bias'"),
  ],
)
def test_what_is_no_part_or_several_is_told_with_all_that_were_tried(eagle, names, told):
  with pytest.raises(EagleError) as error:
    recognise.part_of(eagle.size, names, place="weights.bin")
  text = str(error.value)
  assert text.startswith("weights.bin must be exactly one part of this model")
  assert text.endswith(told)
  assert "whole has 'model.vision_tower.*', language has 'model.embed_tokens.weight' or" in text
  assert "sam has 'layers.{n}.attn.rel_pos_h' or" in text


def test_a_part_is_planned_as_if_it_had_been_named(eagle, tmp_path):
  file = foreign.save(tmp_path / "sam.pth", foreign.tensors(eagle, "sam", scheme="meta"))
  made = recognise.plan(file, EXPERIMENT)
  assert (made.what, made.scheme.name, len(made.fresh)) == ("sam", "meta", 3)
  assert set(made.plan.leaves) | set(made.fresh) == {
    f"vision/sam/{path}" for path in parts.part(eagle, "sam").leaves
  }


def test_a_merged_checkpoint_is_the_model_its_config_says(eagle, tmp_path):
  theirs = config.Model(
    experts=("sam@demo",), language="demo", image_size=64, grid_side=4, vocab_rows=300
  )
  other = eagle_lib.build(theirs)
  foreign.save(tmp_path / "model.safetensors", foreign.tensors(other, "whole"))
  told = upstream.write(theirs, other.size, dtype="float32")
  (tmp_path / "config.json").write_text(json.dumps(told))
  made = recognise.plan(str(tmp_path), EXPERIMENT)
  assert made.experiment.model.experts == ("sam@demo",)
  assert made.plan.leaves["language/embed/embedding"].shape[0] == 300
  assert not any(path.startswith("vision/clip/") for path in made.plan.leaves)


def test_the_embedding_may_have_other_rows_than_the_models(eagle, tmp_path):
  arrays = foreign.tensors(eagle, "language")
  for name in ("model.embed_tokens.weight", "lm_head.weight"):
    arrays[name] = arrays[name][:300]
  made = recognise.plan(foreign.save(tmp_path / "model.safetensors", arrays), EXPERIMENT)
  assert made.plan.leaves["language/head/kernel"].shape[1] == 300
  arrays["model.embed_tokens.weight"] = np.zeros((), np.float32)
  with pytest.raises(EagleError, match=r"'model\.embed_tokens\.weight' has shape \[\]"):
    recognise.plan(foreign.save(tmp_path / "model.safetensors", arrays), EXPERIMENT)
