"""The original's way of encoding, rule by rule; tests/parity/test_tokens.py has its own numbers."""

import copy
import json
import shutil

import numpy as np
import pytest

from eagle_jax.data import batch, tokenize, upstream
from eagle_jax.data.conversation import template
from eagle_jax.data.records import BadRecordError, Turn
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER
from tests.parity import goldens

V1 = template("v1")
SMALL_LLAMA3 = str(goldens.HERE / "tokenizers" / "small_llama3_like.json")


def turns(*messages):
  return tuple(Turn(("human", "gpt")[n % 2], text) for n, text in enumerate(messages))


def encode(tokenizer, form, *messages, max_length=2048):
  return upstream.conversation(tokenizer, form, turns(*messages), max_length=max_length)


def labelled(tokenizer, form, *messages, has_image=False, max_length=2048):
  return upstream.labelled(
    tokenizer, form, turns(*messages), has_image=has_image, max_length=max_length
  )


@pytest.fixture(scope="module")
def modern(vocabulary, tmp_path_factory):
  """The vocabulary of the tests with legacy off, as Vicuna's is."""
  folder = tmp_path_factory.mktemp("modern")
  shutil.copy(vocabulary, folder / "tokenizer.model")
  (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
  return tokenize.load(str(folder))


def test_the_mode_is_looked_up():
  assert upstream.encoder("upstream", V1) is upstream.conversation
  assert upstream.encoder("", template("smollm2")) is upstream.ENCODERS[""]
  with pytest.raises(EagleError, match="did you mean 'upstream'"):
    upstream.encoder("upstreem", V1)
  with pytest.raises(EagleError, match=r"needs a data\.template that the original has, known: v1"):
    upstream.encoder("upstream", template("smollm2"))


def test_the_constructive_mode_is_that_of_tokenize(modern):
  said = turns("<image>\nWhat is shown?", "A red house.")
  made = upstream.encoder("", V1)(modern, V1, said, max_length=5)
  want = tokenize.conversation(modern, V1, said)
  np.testing.assert_array_equal(made.ids, want.ids)
  np.testing.assert_array_equal(made.supervised, want.supervised)


def test_both_modes_agree_on_one_round(modern):
  said = ("<image>\nWhat is shown?", "A red house.")
  theirs, ours = encode(modern, V1, *said), tokenize.conversation(modern, V1, turns(*said))
  np.testing.assert_array_equal(theirs.ids, ours.ids)
  np.testing.assert_array_equal(theirs.supervised, ours.supervised)


def test_pieces_after_a_token_open_a_word_only_in_the_legacy(tokenizer, modern):
  begin, end = tokenizer.bos_id, tokenizer.eos_id
  a, b = tokenizer.encode("a"), tokenizer.encode("b")
  assert upstream.tokens(tokenizer, "a</s>b") == [begin, *a, end, *b]
  assert upstream.tokens(modern, "a</s>b") == [begin, *a, end, *modern.encode("b", continues=True)]
  assert upstream.tokens(tokenizer, "") == upstream.tokens(modern, "") == [begin]


def test_without_legacy_a_text_opens_with_one_word_mark_unless_a_token_does(modern):
  begin, end = modern.bos_id, modern.eos_id
  assert upstream.tokens(modern, "</s> b") == [begin, end, *modern.encode("b")]
  assert upstream.tokens(modern, "▁a") == [begin, *modern.encode(" a")]
  mark = modern.encode(" ", continues=True)
  assert upstream.tokens(modern, " </s>") == [begin, *modern.encode("  ", continues=True), end]
  assert upstream.tokens(modern, "a </s>") == [begin, *modern.encode("a"), *mark, end]


def test_chunks_lose_a_begin_token_by_its_id(tokenizer):
  assert upstream.chunked(tokenizer, "<image>a") == [1, PLACEHOLDER, *tokenizer.encode("a")]
  loaded = tokenize.load(SMALL_LLAMA3)
  assert loaded.habits.adds_bos
  text = "<|begin_of_text|>a<image>bc"
  bare = copy.copy(loaded)
  bare.habits = loaded.habits._replace(adds_bos=False)
  # The text's own begin token is taken for one the tokenizer added: 'bc' loses an id.
  assert upstream.chunked(bare, text) == [
    loaded.bos_id,
    *loaded.encode("a"),
    PLACEHOLDER,
    *loaded.encode("bc")[1:],
  ]


def test_messages_are_rearranged_before_a_leading_answer_is_dropped():
  def repaired(*said):
    return [turn.text for turn in upstream.repaired([Turn(*t) for t in said], has_image=True)]

  assert repaired(("human", "a <image> b <image>"), ("gpt", "c")) == ["<image>\na  b", "c"]
  assert repaired(("human", " <image>\n"), ("gpt", "c")) == ["<image>", "c"]
  assert repaired(("human", "a"), ("gpt", "c")) == ["<image>\na", "c"]
  assert repaired(("gpt", "x"), ("human", "a"), ("gpt", "c")) == ["a", "c"]
  assert upstream.repaired(turns("a <image>"), has_image=False) == turns("a <image>")


def test_an_empty_message_leaves_its_turn_open():
  assert upstream.written(V1, turns("a", "")).endswith("USER: a ASSISTANT:")
  assert upstream.written(V1, turns("", "b")).endswith("questions. USER:ASSISTANT: b</s>")
  llama3 = template("llama3")
  assert upstream.written(llama3, turns("a", "")) == upstream.written(llama3, turns("a"), ask=True)


def test_a_prompt_is_asked_as_the_evaluation_does(modern):
  ask = upstream.prompter("upstream", V1)
  text = "What <image> is <unk>this?"
  got = ask(modern, V1, turns(text))
  whole = upstream.chunked(modern, upstream.written(V1, turns(text), ask=True))
  # The placeholder stays where it is, and what looks like padding is not seen.
  assert got.ids.tolist() == [i for i in whole if i != modern.unk_id]
  assert len(whole) == len(got.ids) + 1
  assert not got.supervised.any()
  ours = upstream.prompter("", V1)(modern, V1, turns(text))
  np.testing.assert_array_equal(ours.ids, tokenize.prompt(modern, V1, turns(text)).ids)
  assert len(ours.ids) != len(got.ids)


@pytest.mark.parametrize("name", ["v1", "plain"])
def test_a_prompt_is_the_beginning_of_what_was_trained_on(modern, name):
  form, said = template(name), turns("<image>\nWhat is shown?", "A red house.")
  asked, whole = (
    upstream.prompt(modern, form, said[:1]),
    encode(modern, form, *(t.text for t in said)),
  )
  np.testing.assert_array_equal(whole.ids[: len(asked.ids)], asked.ids)


def test_prompts_are_looked_up_as_conversations_are():
  with pytest.raises(EagleError, match=r"needs a data\.template that the original has"):
    upstream.prompter("upstream", template("brief"))


def test_an_answer_with_the_cue_masks_the_sample(modern):
  made = labelled(modern, V1, "Repeat.", "He said ASSISTANT: hello")
  assert made.mismatch
  assert not made.supervised.any()
  ours = tokenize.conversation(modern, V1, turns("Repeat.", "He said ASSISTANT: hello"))
  assert ours.supervised.any()


def test_a_text_is_cut_before_its_mask_is_made(modern):
  said = ("What is shown?", "A red house. " * 20)
  whole = labelled(modern, V1, *said)
  cut = labelled(modern, V1, *said, max_length=len(whole.ids) - 10)
  np.testing.assert_array_equal(cut.ids, whole.ids[:-10])
  np.testing.assert_array_equal(cut.supervised, whole.supervised[:-10])
  assert not cut.mismatch
  # Cut in the question, nothing is left to learn, and nothing says so.
  assert not labelled(modern, V1, *said, max_length=20).supervised.any()


def test_a_picture_is_cut_away_with_its_placeholder(modern):
  said = ("What is shown? " * 10, "A dog.", "<image>\nAnd here?", "A house.")
  with pytest.raises(BadRecordError, match="of 1 <image> it makes 2"):
    encode(modern, V1, *said)
  said = (f"<image>\n{said[0]}", *said[1:])
  assert (encode(modern, V1, *said).ids == PLACEHOLDER).sum() == 2
  whole = labelled(modern, V1, *said, has_image=True, max_length=60)
  first, second = np.flatnonzero(whole.ids == PLACEHOLDER)
  made = encode(modern, V1, *said, max_length=second)
  assert np.flatnonzero(made.ids == PLACEHOLDER).tolist() == [first]
  row = batch.row(made, np.zeros((1, 4, 4, 3), np.uint8), tokens_per_image=16, max_length=second)
  assert (row.tokens == PLACEHOLDER).sum() == 16


def test_several_pictures_of_one_message_are_refused(modern):
  with pytest.raises(BadRecordError) as caught:
    encode(modern, V1, "<image>\n<image>\nWhich one is older?", "The first.")
  assert caught.value.reason == "the original loses count of the images"


def test_an_id_that_equals_the_paddings_is_removed(modern):
  made = labelled(modern, template("plain"), "<image>", "a<unk>b", has_image=True)
  hidden = upstream.collated(made, pad_id=upstream.pad_id(modern), max_length=2048).attention
  assert made.ids[~hidden].tolist() == [modern.unk_id]
  assert made.supervised[~hidden].all()
  row = encode(modern, template("plain"), "<image>", "a<unk>b")
  np.testing.assert_array_equal(row.ids, made.ids[hidden])
  np.testing.assert_array_equal(row.supervised, made.supervised[hidden])


def test_without_an_unknown_token_a_pad_is_added():
  loaded = tokenize.load(SMALL_LLAMA3)
  assert upstream.pad_id(loaded) == loaded.vocab_size
  assert upstream.tokens(loaded, "<pad>") == [loaded.bos_id, loaded.vocab_size]
  made = encode(loaded, template("plain"), "<image>", "a<pad>b")
  assert made.ids.max() < loaded.vocab_size


def test_a_vocabulary_without_named_tokens(tokenizer):
  class Nameless:
    bos_id, unk_id, vocab_size = 1, 0, 9
    habits = tokenize.Habits(False, True, {})

    def encode(self, text, *, continues=False):
      return tokenizer.encode(text, continues=continues)

  assert upstream.tokens(Nameless(), "A red house.") == tokenizer.encode("A red house.")


def test_plain_takes_a_picture_and_its_caption_only(modern):
  with pytest.raises(BadRecordError) as caught:
    encode(modern, template("plain"), "What is shown?", "A dog.")
  assert caught.value.reason == "no caption"
