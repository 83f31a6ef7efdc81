"""Language models in GGUF against a reference that shares nothing with the converter.

EAGLE_PRETRAINED names the folder that `make demo-pretrained` unpacks packages in; the tests
on what they ship are left out where it is not set.
"""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine
from eagle_jax.data import tokenize
from eagle_jax.demo import pretrained
from eagle_jax.demo.reference import Reference
from eagle_jax.infer.generate import Limits, Prompt, generate
from eagle_jax.infer.unstack import unstack
from eagle_jax.interchange import incoming
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.language.llama import Llama
from tests.convert import gguf_files

PRETRAINED = pathlib.Path(os.environ.get("EAGLE_PRETRAINED", ""), pretrained.SMOLLM2)


def converted(file, language, folder):
  """Parameters of a GGUF file, after they went through a checkpoint."""
  model = config.Model(experts=("clip@demo",), language=language, image_size=64, grid_side=4)
  planned = incoming.plan(str(file), "language", config.Experiment(name="test", model=model))
  incoming.save(planned, str(folder))
  held = checkpoint.open_params(str(folder))
  arrays = {path.removeprefix("language/"): np.asarray(leaf) for path, leaf in held.items()}
  return engine.unflatten(arrays)


def logits(params, ids, size):
  """Scores [S, V] of this project's decoder."""
  model = Llama(size)
  tokens = jnp.asarray(ids, jnp.int32)[None]
  positions = jnp.arange(len(ids))[None]

  def whole(model, tokens, valid, positions):
    return model.logits(model(model.embed(tokens), valid, positions))

  run = jax.jit(functools.partial(model.apply, method=whole))
  return np.asarray(run({"params": params}, tokens, tokens >= 0, positions))[0]


@pytest.mark.parametrize(
  ("language", "kind"), [("tiny", gguf_files.F32), ("demo", gguf_files.Q4_1)]
)
def test_a_small_model_scores_as_the_reference(tmp_path, language, kind):
  size = LANGUAGE_MODELS[language]
  file = gguf_files.llama(tmp_path / "x.gguf", size, kind)
  ids = np.random.default_rng(1).integers(size.vocab, size=9)
  want = Reference(file, np.float64).logits(ids)
  got = logits(converted(file, language, tmp_path / "made"), ids, size)
  assert np.linalg.norm(got - want) < 4e-6 * np.linalg.norm(want)


@pytest.mark.slow
@pytest.mark.skipif(not PRETRAINED.is_file(), reason="EAGLE_PRETRAINED holds no SmolLM2")
def test_smollm2_answers_as_the_reference(tmp_path):
  size = LANGUAGE_MODELS["smollm2_135m"]
  params = converted(PRETRAINED, "smollm2_135m", tmp_path / "made")
  tokenizer = tokenize.load(str(tmp_path / "made" / incoming.COMPANIONS_FOLDER))
  begin, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
  ids = [begin, *tokenizer.encode("user\nWhat colour is the sky on a clear day?"), end]
  ids += [*tokenizer.encode("\n"), begin, *tokenizer.encode("assistant\n")]
  want = Reference(PRETRAINED).logits(ids)
  got = logits(params, ids, size)
  assert np.linalg.norm(got - want) < 1e-5 * np.linalg.norm(want)
  tokens = jnp.asarray(ids, jnp.int32)[None]
  prompt = Prompt(params["embed"]["embedding"][tokens], tokens >= 0, jnp.arange(len(ids))[None])
  limits = Limits(max_new_tokens=20, eos_ids=(end,))
  answer = generate(Llama(size, stacked=False), unstack(params), prompt, limits=limits)
  assert "blue" in tokenizer.decode(np.asarray(answer.tokens)[0].tolist())
