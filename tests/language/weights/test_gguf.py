"""GGUF's names of a language model, and its order of the rows of queries and keys."""

import dataclasses
import types

import numpy as np
import pytest

from eagle_jax.convert import engine
from eagle_jax.convert.rules import Drop, linear
from eagle_jax.convert.source import ArraySource
from eagle_jax.errors import EagleError
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.language.weights import gguf, llama

TINY = LANGUAGE_MODELS["tiny"]
FACTS = {
  "general.architecture": "llama",
  "llama.block_count": 2,
  "llama.embedding_length": 48,
  "llama.attention.head_count": 6,
  "llama.attention.head_count_kv": 2,
  "llama.rope.dimension_count": 8,
  "llama.rope.freq_base": 1e4,
  "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
}


def test_rows_of_a_head_come_in_halves():
  # Two heads of four rows; the file has row i beside row i + 2.
  file = np.array([0, 2, 1, 3, 4, 6, 5, 7])[:, None] * np.ones((1, 3))
  made = gguf.paired(2, 4)
  np.testing.assert_array_equal(made.forward(file), np.arange(8.0)[None] * np.ones((3, 1)))
  np.testing.assert_array_equal(made.inverse(made.forward(file)), file)
  assert made.shape(file.shape) == made.forward(file).shape


def test_scores_with_neighbours_turned_are_those_with_halves_turned():
  heads, width, length = 3, 8, 5
  rng = np.random.default_rng(0)
  x, query, key = (rng.normal(size=shape) for shape in [(length, 16), (24, 16), (24, 16)])
  angle = np.arange(length)[:, None, None] * 10.0 ** -np.arange(width // 2)

  def neighbours(kernel):
    y = (x @ kernel.T).reshape(length, heads, width // 2, 2)
    even, odd = y[..., 0], y[..., 1]
    turned = even * np.cos(angle) - odd * np.sin(angle), even * np.sin(angle) + odd * np.cos(angle)
    return np.stack(turned, -1).reshape(length, heads, width)

  def halves(kernel):
    y = (x @ kernel).reshape(length, heads, 2, width // 2)
    low, high = y[..., 0, :], y[..., 1, :]
    turned = low * np.cos(angle) - high * np.sin(angle), low * np.sin(angle) + high * np.cos(angle)
    return np.concatenate(turned, -1)

  made = gguf.paired(heads, width)
  scores = lambda q, k: np.einsum("qhd,khd->hqk", q, k)
  file = scores(neighbours(query), neighbours(key))
  np.testing.assert_allclose(
    scores(halves(made.forward(query)), halves(made.forward(key))), file, rtol=1e-12, atol=1e-12
  )
  assert np.abs(scores(halves(query.T), halves(key.T)) - file).max() > 1


@pytest.mark.parametrize("shape", [(24,), (23, 16), (16, 24), (24, 16, 1)])
def test_another_number_of_rows_is_told(shape):
  with pytest.raises(ValueError, match=r"3 heads take the shape \[24, in\]"):
    gguf.paired(3, 8).shape(shape)


@pytest.mark.parametrize("tied", [True, False])
def test_names_are_those_of_the_other_scheme_rule_by_rule(tied):
  size = dataclasses.replace(TINY, tied=tied)
  ours, theirs = gguf.table(size), llama.table(tied)
  assert len(ours.rules) == len(theirs.rules) + 1
  for name, kind in [("q", 6), ("k", 2)]:
    rule, _ = ours.match(f"blk.1.attn_{name}.weight")
    assert rule.transform.name == f"paired rows of {kind} heads"
  assert ours.match("blk.1.attn_v.weight")[0].transform is linear
  for dropped in ("rope_freqs.weight", "blk.0.attn_rot_embd", "blk.0.attn_rot_embd.weight"):
    assert isinstance(ours.match(dropped)[0], Drop)
  assert isinstance(ours.match("output.weight")[0], Drop) == tied
  assert ours.match(gguf.MARK)[0].target == "embed/embedding"
  assert theirs.match(gguf.MARK) is None


def test_export_gives_every_tensor_back():
  rng = np.random.default_rng(0)
  layers = {
    "attn_norm": (48,),
    "attn_q": (48, 48),
    "attn_k": (16, 48),
    "attn_v": (16, 48),
    "attn_output": (48, 48),
    "ffn_norm": (48,),
    "ffn_gate": (96, 48),
    "ffn_up": (96, 48),
    "ffn_down": (48, 96),
  }
  shapes = {f"blk.{n}.{name}.weight": shape for name, shape in layers.items() for n in (0, 1)}
  shapes |= {"token_embd.weight": (97, 48), "output_norm.weight": (48,), "output.weight": (97, 48)}
  tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  source = ArraySource(tensors)
  leaf = lambda *shape: types.SimpleNamespace(shape=shape, dtype=np.dtype(np.float32))
  abstract = {
    "embed/embedding": leaf(97, 48),
    "layers/attention_norm/scale": leaf(2, 48),
    "layers/attention/query/kernel": leaf(2, 48, 48),
    "layers/attention/key/kernel": leaf(2, 48, 16),
    "layers/attention/value/kernel": leaf(2, 48, 16),
    "layers/attention/out/kernel": leaf(2, 48, 48),
    "layers/mlp_norm/scale": leaf(2, 48),
    "layers/mlp/gate/kernel": leaf(2, 48, 96),
    "layers/mlp/up/kernel": leaf(2, 48, 96),
    "layers/mlp/down/kernel": leaf(2, 96, 48),
    "final_norm/scale": leaf(48),
    "head/kernel": leaf(48, 97),
  }
  plan = engine.plan(source, gguf.table(TINY), engine.unflatten(abstract))
  params, _ = engine.fill(plan, source)
  for made in (plan, gguf.table(TINY)):
    exported = dict(engine.export(made, params))
    assert exported.keys() == tensors.keys()
    for name, array in tensors.items():
      np.testing.assert_array_equal(exported[name], array)


def described(rope=None, **changes):
  source = ArraySource({} if rope is None else {gguf.ROPE_FACTORS: rope}, "x.gguf")
  source.metadata = FACTS | {key.replace("__", "."): value for key, value in changes.items()}
  return source


def test_a_file_of_this_size_passes():
  gguf.check(TINY, described())
  gguf.check(TINY, described(llama__rope__scaling__type="none"))
  gguf.check(TINY, described(np.ones(4, np.float32)))
  gguf.check(TINY, ArraySource({}))


@pytest.mark.parametrize(
  ("source", "message"),
  [
    (described(llama__attention__head_count=12), "head_count is 12, num_heads is 6"),
    (described(llama__rope__freq_base=5e5), "freq_base is 500000.0, rope_theta is 10000.0"),
    (described(llama__block_count="2"), "block_count is '2', depth is 2"),
    (described(general__architecture="qwen2"), "architecture is 'qwen2', not 'llama'"),
    (described(llama__rope__scaling__type="linear"), "only 'none' is known"),
    (described(np.array([1.0, 8.0])), "rope_freqs.weight is not all ones"),
  ],
)
def test_another_model_of_the_same_shapes_is_told(source, message):
  with pytest.raises(EagleError, match=rf"x\.gguf is of another model:\n  .*{message}"):
    gguf.check(TINY, source)
