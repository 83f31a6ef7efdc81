"""Comparing the two ways of encoding: each conversation counts once, and the same each time."""

import json

import pytest

from bench import tokens
from eagle_jax.data import conversation, tokenize
from eagle_jax.data.records import parse
from tests.parity import goldens

LLAMA3 = goldens.HERE / "tokenizers" / "small_llama3_like.json"


def run(capsys, *arguments):
  assert tokens.main(["--count=4", *arguments]) == 0
  return {line["kind"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}


def test_ordinary_conversations_do_not_differ(capsys):
  found = run(capsys, f"--tokenizer={LLAMA3}", "--template=llama3")
  for kind in ("one round", "several rounds", "several rounds, picture", "very long, picture"):
    assert found[kind]["equal"] == 4, kind
  assert found["two pictures in one question"]["refused"] == 4
  assert found["an empty answer"]["masked"] == 4
  total = found.pop("all")
  assert total["conversations"] == 4 * len(found)
  for line in found.values():
    assert sum(line[name] for name in tokens.OUTCOMES) == line["conversations"] == 4


def test_a_literal_unk_is_lost_there(capsys, vocabulary):
  found = run(capsys, f"--tokenizer={vocabulary}", "--template=plain", "--legacy=off")
  assert found["<unk> in a caption"]["other_ids"] == 4
  assert found["caption"]["equal"] == 4


def test_legacy_is_overruled_for_one_run_alone(capsys, vocabulary):
  before = tokenize.load(vocabulary).habits
  assert before.legacy
  assert run(capsys, f"--tokenizer={vocabulary}", "--legacy=off")["one round"]["equal"] == 4
  found = run(capsys, f"--tokenizer={vocabulary}")
  assert found["several rounds"]["other_ids"] + found["several rounds"]["masked"] == 4
  assert tokenize.load(vocabulary).habits == before


@pytest.mark.parametrize("caption", [False, True])
def test_the_corpus_is_made_of_valid_records(caption):
  made = list(tokens.corpus(3, caption=caption))
  assert made == list(tokens.corpus(3, caption=caption))
  for _, conversations in made:
    for turns in conversations:
      names = ["a.png"] * sum(turn.text.count("<image>") for turn in turns)
      entry = {"conversations": [{"from": t.role, "value": t.text} for t in turns], "image": names}
      assert parse(entry, "made", 1).turns == turns
      if caption:
        conversation.demand_caption(turns)
