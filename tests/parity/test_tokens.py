"""Token ids and label masks of the original, id by id, for every set whose tokenizer is there.

The vocabulary of Llama 3 is not among the golden files: EAGLE_LLAMA3_TOKENIZER names its
tokenizer.json where one is at hand.
"""

import functools
import json
import os
import pathlib

import numpy as np
import pytest

from eagle_jax.data import records, tokenize, upstream
from eagle_jax.data.conversation import template
from eagle_jax.data.records import Turn
from eagle_jax.types import PLACEHOLDER
from tests.parity import goldens

BEGIN = "<|begin_of_text|>"
# What span by span is refused or written otherwise on purpose: control tokens typed by
# users, empty messages (open turns there), numbers of pictures that do not fit, leading
# answers that take the placeholder with them.
DELIBERATE = (
  "literal",
  "empty_answer",
  "two_placeholders",
  "two_messages",
  "two_images",
  "no_placeholder",
  "plain_3",
)
BATCHES = ("collated", "collated_long", "collated_unk")
SETS = [
  *(
    f"{family}_{name}_legacy{legacy}"
    for family in ("small", "llama2")
    for name in ("vicuna_v1", "plain", "yi34b")
    for legacy in (False, True)
  ),
  "llama2_vicuna_v1_legacyFalse_max40",
  "small_llama3",
  "small_plain",
  *(f"llama3_{begin}_{name}" for begin in ("bos", "nobos") for name in ("llama3", "plain")),
]


@functools.cache
def sets():
  """Returns (folder, content) of every set there is, the first folder's where two have it."""
  found = {}
  for folder in reversed(goldens.folders()):
    for file in folder.glob("tokens_*.json"):
      content = json.loads(file.read_text())["sets"]
      found |= {name: (folder, one) for name, one in content.items()}
  return found


def tokenizer_of(name, folder, content, tmp_path):
  """Returns the set's tokenizer, as a checkpoint's folder with such settings gives it."""
  if name.startswith("llama3"):
    chosen = os.environ.get("EAGLE_LLAMA3_TOKENIZER", "")
    if not chosen:
      pytest.skip("EAGLE_LLAMA3_TOKENIZER names no tokenizer.json of Llama 3")
    file = pathlib.Path(chosen)
  elif content["legacy"] is None:
    file = folder / "tokenizers" / "small_llama3_like.json"
  else:
    model = "llama2_from_npm" if name.startswith("llama2") else "small_llama_like"
    file = folder / "tokenizers" / f"{model}.model"
  data = file.read_bytes()
  if "_bos_" in name:
    data = adding_bos(json.loads(data), content["bos"])
  config = {"legacy": content["legacy"], "add_bos_token": "yi34b" not in name}
  if "yi34b" in name:  # a stand-in: the names of its turns are its last two tokens
    last = content["vocab_with_added"]
    config["added_tokens_decoder"] = {
      str(last - 2): {"content": "<|im_start|>"},
      str(last - 1): {"content": "<|im_end|>"},
    }
  (tmp_path / f"tokenizer{file.suffix}").write_bytes(data)
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  return tokenize.load(str(tmp_path))


def adding_bos(data, bos):
  """Returns the bytes of a tokenizer.json that puts its begin token in front."""
  begin = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
  data["post_processor"] = {
    "type": "TemplateProcessing",
    "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
    "special_tokens": {
      "<|begin_of_text|>": {
        "id": "<|begin_of_text|>",
        "ids": [bos],
        "tokens": ["<|begin_of_text|>"],
      }
    },
  }
  return json.dumps(data).encode()


@pytest.fixture(scope="module", params=SETS)
def golden_set(request, tmp_path_factory):
  """(content, tokenizer, template) of a set."""
  name = request.param
  if name not in sets():
    pytest.skip(f"no golden file here holds the set {name}")
  folder, content = sets()[name]
  tokenizer = tokenizer_of(name, folder, content, tmp_path_factory.mktemp(name))
  return content, tokenizer, template(content["version"])


def turns_of(case):
  return [Turn(turn["from"], turn["value"]) for turn in case["conversation"]]


def labelled(tokenizer, form, case, max_length):
  return upstream.labelled(
    tokenizer, form, turns_of(case), has_image=case["has_image"], max_length=max_length
  )


def labels(ids, supervised):
  return np.where(supervised, ids, -100).tolist()


def test_every_conversation(golden_set):
  content, tokenizer, form = golden_set
  for name, case in content["cases"].items():
    made = labelled(tokenizer, form, case, content["model_max_length"])
    assert made.ids.tolist() == case["input_ids"], name
    assert labels(made.ids, made.supervised) == case["labels"], name
    assert made.mismatch == case["mismatch_all_masked"], name
    if "prompt" in case:
      turns = upstream.repaired(turns_of(case), has_image=case["has_image"])
      assert upstream.written(form, turns) == case["prompt"], name


def test_every_batch(golden_set):
  content, tokenizer, form = golden_set
  longest = content["model_max_length"]
  pad = upstream.pad_id(tokenizer)
  assert pad == content["pad"]
  batches = [
    content[key] for key in ("collated", "collated_long", "collated_unk") if key in content
  ]
  for batch in batches:
    named = batch["of"] if isinstance(batch["of"], list) else list(content["cases"])[:4]
    rows = [
      upstream.collated(
        labelled(tokenizer, form, content["cases"][name], longest), pad_id=pad, max_length=longest
      )
      for name in named
    ]
    width = max(len(row.ids) for row in rows)
    ids, supervised, attention = (np.zeros((len(rows), width), d) for d in (int, bool, bool))
    ids[:] = pad
    for b, row in enumerate(rows):
      ids[b, : len(row.ids)] = row.ids
      supervised[b, : len(row.ids)] = row.supervised
      attention[b, : len(row.ids)] = row.attention
    shown, prefix = (slice(-6, None), "last_6_") if "shape" in batch else (slice(None), "")
    assert list(ids.shape) == batch.get("shape", list(ids.shape))
    assert supervised.sum(1).tolist() == batch.get("supervised_per_row", supervised.sum(1).tolist())
    assert ids[:, shown].tolist() == batch[f"{prefix}input_ids"]
    assert labels(ids[:, shown], supervised[:, shown]) == batch[f"{prefix}labels"]
    assert attention[:, shown].astype(int).tolist() == batch[f"{prefix}attention_mask"]


def test_what_the_model_sees(golden_set):
  """The encoder of the pipeline: cut to the longest row, without what looks like padding."""
  content, tokenizer, form = golden_set
  encode = upstream.encoder("upstream", form)
  seen = 0
  for name, case in content["cases"].items():
    turns = upstream.repaired(turns_of(case), has_image=case["has_image"])
    whole = sum(turn.text.count("<image>") for turn in turns)
    given = sum(turn["value"].count("<image>") for turn in case["conversation"])
    if whole != given or case["has_image"] != bool(whole):
      continue  # no record: pictures and placeholders differ in number
    made = encode(tokenizer, form, turns, max_length=content["model_max_length"])
    ids = np.array(case["input_ids"])[: content["model_max_length"]]
    kept = ids != content["pad"]
    assert made.ids.tolist() == ids[kept].tolist(), name
    want = np.array(case["labels"])[: content["model_max_length"]][kept]
    assert labels(made.ids, made.supervised) == want.tolist(), name
    seen += 1
  assert seen


def test_every_prompt_and_chunk(golden_set):
  content, tokenizer, form = golden_set
  for text, want in content["generation_prompts"].items():
    prompt = upstream.written(form, [Turn("human", text)], ask=True)
    assert prompt == want["prompt"]
    assert upstream.chunked(tokenizer, prompt) == want["input_ids"], text
    asked = upstream.prompter("upstream", form)(tokenizer, form, [Turn("human", text)])
    assert asked.ids.tolist() == [i for i in want["input_ids"] if i != content["pad"]], text
  for text, ids in content["image_token_chunks"].items():
    assert upstream.chunked(tokenizer, text) == ids, text
    assert ids.count(PLACEHOLDER) == text.count("<image>")


def demand_own_settings(content, tokenizer, form):
  """Skips a set of settings that no released model was trained with."""
  habits = tokenizer.habits
  if habits.adds_bos != form.bos or (content["legacy"] is not None and habits.legacy != form.opens):
    pytest.skip("other settings of the tokenizer than the released model's")


def test_span_by_span_ordinary_conversations_are_the_same(golden_set):
  content, tokenizer, form = golden_set
  demand_own_settings(content, tokenizer, form)
  seen = labelled = 0
  for name, case in content["cases"].items():
    cut = not case["has_image"] and len(case["input_ids"]) == content["model_max_length"]
    if cut or any(word in name for word in DELIBERATE):
      continue
    fields = {"image": "a.jpg"} if case["has_image"] else {}
    record = records.parse({"conversations": case["conversation"], **fields}, name, 1)
    made = tokenize.conversation(tokenizer, form, record.turns)
    seen += 1
    assert made.ids.tolist() == case["input_ids"], name
    if not case["mismatch_all_masked"]:
      labelled += 1
      assert labels(made.ids, made.supervised) == case["labels"], name
  assert seen >= labelled >= min(2, len(content["cases"]))


def test_span_by_span_prompts_are_the_same(golden_set):
  content, tokenizer, form = golden_set
  demand_own_settings(content, tokenizer, form)
  for text, want in content["generation_prompts"].items():
    asked = tokenize.prompt(tokenizer, form, [Turn("human", text)])
    assert asked.ids.tolist() == want["input_ids"], text
