"""The decoder against the original: logits, losses, hidden states, rotary tables, generation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.infer.generate import Limits, Prompt, generate
from eagle_jax.infer.unstack import unstack
from eagle_jax.language.llama import Llama
from eagle_jax.language.weights import llama as weights
from eagle_jax.nn.rotary import rotary
from tests.parity import goldens, recipe, sizes

FILES = goldens.discover("language")
FORWARD = [pytest.param(g, id=str(g)) for g in FILES if "logits_right" in g]
ENDING = [pytest.param(g, id=str(g)) for g in FILES if "new_ids_no_eos" in g]
SIDES = ("right", "left")
LOGIT_NOISE = 1e-6
"""Float32 noise of logits, absolute, for files that state none: that of
llama_tiny_mha_theta10000, whose configuration they share."""


def whole(model, tokens, valid, positions):
  """Logits [B, S, V]; also what makes every parameter at initialisation."""
  return model.logits(model(model.embed(tokens), valid, positions))


@functools.cache
def loaded(golden):
  """Size and converted parameters of a golden, through the real table and engine."""
  size = sizes.language(golden.meta["config"])
  row = jnp.zeros((1, 2), jnp.int32)
  init = lambda: Llama(size).init(jax.random.key(0), row, row == 0, row, method=whole)
  abstract = jax.eval_shape(init)["params"]
  params = goldens.convert(goldens.weights(golden), weights.table(size.tied), abstract)
  return size, jax.tree.map(jnp.asarray, params)


@functools.cache
def forward(golden, name):
  """Logits [B, S, V] and probes of `input_ids_NAME`, at positions 0 … S−1 as upstream's."""
  size, params = loaded(golden)
  tokens = jnp.asarray(golden[f"input_ids_{name}"], jnp.int32)
  mask = f"attention_mask_{name}"
  valid = jnp.asarray(golden[mask] if mask in golden else np.ones(tokens.shape), bool)
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
  run = jax.jit(functools.partial(Llama(size).apply, method=probed, mutable=["probes"]))
  (embeddings, hidden, logits), extra = run({"params": params}, tokens, valid, positions)
  (blocks,) = extra["probes"]["layers"]["block"]
  # The original lists embeddings, then every block but the last, then the final norm.
  return logits, [embeddings, *blocks[:-1], hidden]


def probed(model, tokens, valid, positions):
  """Embeddings, final hidden states and logits."""
  embeddings = model.embed(tokens)
  hidden = model(embeddings, valid, positions)
  return embeddings, hidden, model.logits(hidden)


def cross_entropy(logits, labels):
  """Mean over the targets labels[:, 1:] that are not −100."""
  targets = labels[:, 1:]
  scores = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
  chosen = np.take_along_axis(np.asarray(scores), np.maximum(targets, 0)[..., None], axis=-1)
  return -chosen[..., 0][targets != -100].mean()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("golden", FORWARD)
def test_logits_at_valid_positions(golden, side):
  valid = golden[f"attention_mask_{side}"].astype(bool)
  logits, _ = forward(golden, side)
  goldens.assert_close(golden, f"logits_{side}", logits, where=valid)


@pytest.mark.parametrize("golden", FORWARD)
def test_whole_tensors_and_statistics_with_padding_on_the_right(golden):
  logits, hidden = forward(golden, "right")
  goldens.assert_close(golden, "logits_right", logits)
  assert f"hidden_{len(hidden)}_right" not in golden
  for n, states in enumerate(hidden):
    goldens.assert_close(golden, f"hidden_{n}_right", states)


@pytest.mark.parametrize("golden", FORWARD)
def test_losses(golden):
  for name, side in (("loss_right", "right"), ("loss_left_valid_only", "left")):
    labels = golden["labels_right" if side == "right" else "labels_left_valid_only"]
    goldens.assert_close(golden, name, cross_entropy(forward(golden, side)[0], labels))


@pytest.mark.parametrize("golden", FORWARD)
def test_a_long_row(golden):
  logits, _ = forward(golden, "long")
  goldens.assert_close(golden, "logits_long_last8", logits[:, -8:])


@pytest.mark.parametrize("golden", FORWARD)
def test_rotary_tables(golden):
  size, _ = loaded(golden)
  positions = jnp.asarray(golden["rope_positions"], jnp.int32)[None]
  cos, sin = rotary(positions, size.head_dim, size.rope_theta)
  goldens.assert_close(golden, "rope_cos", cos[0])
  goldens.assert_close(golden, "rope_sin", sin[0])


def answer(golden, tokens, mask, **limits):
  """What the compiled loop gives for a batch of prompts as token ids."""
  size, params = loaded(golden)
  valid = jnp.asarray(mask, bool)
  positions = jnp.where(valid, jnp.cumsum(valid, axis=1) - 1, 1)
  tokens = jnp.asarray(tokens, jnp.int32)
  embeddings = Llama(size).apply({"params": params}, tokens, method="embed")
  prompt = Prompt(embeddings, valid, positions)
  model = Llama(size, stacked=False)
  return generate(model, unstack(params), prompt, limits=Limits(scores=True, **limits))


@pytest.mark.parametrize("golden", FORWARD)
def test_greedy_generation_from_a_left_padded_batch(golden):
  prompts, mask = golden["input_ids_left"], golden["attention_mask_left"]
  wanted = golden["generated_left_padded"][:, prompts.shape[1] :]
  out = answer(golden, prompts, mask, max_new_tokens=wanted.shape[1])
  np.testing.assert_array_equal(out.tokens, wanted)
  goldens.assert_close(golden, "generate_scores", out.scores)
  assert_margins(golden, "generate_top1_minus_top2", out.scores)


@pytest.mark.parametrize("golden", FORWARD)
def test_a_row_by_itself_gives_the_same_ids(golden):
  prompts, mask = golden["input_ids_left"], golden["attention_mask_left"]
  wanted = golden["generated_left_padded"][:, prompts.shape[1] :]
  # One shape for all, so that the loop compiles once; the longest row has no padding.
  for row in range(len(prompts)):
    alone = slice(row, row + 1)
    out = answer(golden, prompts[alone], mask[alone], max_new_tokens=wanted.shape[1])
    np.testing.assert_array_equal(out.tokens[0], wanted[row])


@pytest.mark.parametrize("case", ["no_eos", "one_eos", "two_eos"])
@pytest.mark.parametrize("golden", ENDING)
def test_rows_stop_at_end_ids(golden, case):
  wanted, meta = golden[f"new_ids_{case}"], golden.meta
  ends = golden.arrays.get(f"eos_{case}", ())
  steps = meta["max_new_tokens"]
  out = answer(
    golden,
    golden["input_ids"],
    golden["attention_mask"],
    max_new_tokens=steps,
    eos_ids=tuple(int(n) for n in ends),
    pad_id=meta["pad_token_id"],
  )
  padded = np.full((len(wanted), steps), meta["pad_token_id"])
  padded[:, : wanted.shape[1]] = wanted
  np.testing.assert_array_equal(out.tokens, padded)
  if f"length_{case}" in golden:
    np.testing.assert_array_equal(out.lengths, golden[f"length_{case}"])
  else:
    assert_margins(golden, f"top1_minus_top2_{case}", out.scores)


def assert_margins(golden, tensor, scores):
  """Compares the distances [B, T] between the two best scores of each step.

  Equal tokens prove something only where no near tie hides the error.
  """
  best = np.sort(np.asarray(scores), axis=-1)
  error = float(np.abs(best[..., -1] - best[..., -2] - golden[tensor]).max())
  noise = golden.meta["noise"].get("logits_left", {}).get("f64_max_abs", LOGIT_NOISE)
  goldens.MEASURED.append(goldens.Measured(str(golden), tensor, error, 10 * noise, absolute=True))
  assert error <= 10 * noise
  assert error < golden[tensor].min() / 10


@pytest.mark.parametrize("golden", FORWARD)
def test_inputs_are_those_of_the_recipe(golden):
  vocab = golden.meta["config"]["vocab_size"]
  assert recipe.stats(golden["input_ids_long"])[3] < vocab
  assert goldens.weights(golden).read("lm_head.weight").shape[0] == vocab
