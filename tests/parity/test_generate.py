"""Greedy answers to prompts with pictures against the original, token by token."""

import numpy as np
import pytest

from eagle_jax.infer.generate import Limits, Prompt, generate
from eagle_jax.infer.unstack import unstack
from eagle_jax.language.llama import Llama
from tests.parity import goldens, whole
from tests.parity.measured import MEASURED, Measured

CASES = [pytest.param(golden, id=str(golden)) for golden in goldens.discover("generate")]
ENDING = [case for case in CASES if "returned_sequence_with_eos" in case.values[0]]


def _answer(golden, eos_ids=()):
  """What the compiled loop gives to the rows as the whole model embeds them."""
  steps = whole.forward(golden)
  prompt = Prompt(steps.inputs_embeds, steps.batch.valid, steps.batch.positions)
  language = Llama(whole.model(golden).size.language, stacked=False)
  limits = Limits(
    max_new_tokens=golden["generated"].shape[1], eos_ids=eos_ids, pad_id=whole.PAD, scores=True
  )
  return generate(language, unstack(whole.params(golden)["language"]), prompt, limits=limits)


def _hold(golden, tensor, got, want):
  """Records the error of a tensor and holds it to ten times its noise.

  Files that bring no noise of their own have that of their configuration's logits.
  """
  noise = goldens.reference(golden).meta["noise"] | golden.meta.get("noise", {})
  limit = 10 * noise.get(tensor, noise["logits"])["f64_rel_l2"]
  error = goldens.relative(got, want)
  MEASURED.append(Measured(str(golden), tensor, error, limit))
  assert error <= limit


@pytest.mark.parametrize("golden", CASES)
def test_the_prompt_is_laid_out_and_embedded_as_the_original_one(golden):
  steps = whole.forward(golden)
  if "inputs_embeds" not in golden:
    assert steps.batch.valid.all(), "only a single row comes without its embeddings"
    return
  np.testing.assert_array_equal(steps.batch.valid, golden["merged_attention_mask"])
  _hold(golden, "inputs_embeds", steps.inputs_embeds, golden["inputs_embeds"])


@pytest.mark.parametrize("golden", CASES)
def test_tokens_are_equal_and_scores_close(golden):
  wanted = golden["generated"]
  answer = _answer(golden)
  np.testing.assert_array_equal(answer.tokens, wanted)
  scores = golden["scores"]  # several prompts: [B, T, V], one: [T, 1, V]
  scores = scores if scores.shape[:2] == wanted.shape else scores.swapaxes(0, 1)
  _hold(golden, "scores", answer.scores, scores)
  # Equal tokens prove something only where no near tie hides the error.
  assert np.abs(answer.scores - scores).max() < golden["top1_minus_top2"].min() / 10


@pytest.mark.parametrize("golden", ENDING)
def test_rows_end_at_their_end_ids_and_fill_up_with_padding(golden):
  wanted = golden["returned_sequence_with_eos"][:, 1:]  # the original put a BOS in front
  answer = _answer(golden, tuple(int(n) for n in golden["eos_token_id"]))
  steps = wanted.shape[1]
  np.testing.assert_array_equal(answer.tokens[:, :steps], wanted)
  np.testing.assert_array_equal(answer.tokens[:, steps:], whole.PAD)
