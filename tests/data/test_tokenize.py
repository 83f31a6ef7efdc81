import json
import pickle
import shutil

import numpy as np
import pytest
import tokenizers

from eagle_jax.data import tokenize
from eagle_jax.data.conversation import EOS, render, template
from eagle_jax.data.records import BadRecordError, Turn
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER

LLAMA3 = (
  "<|begin_of_text|>",
  "<|end_of_text|>",
  "<|start_header_id|>",
  "<|end_header_id|>",
  "<|eot_id|>",
)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
  """Path of a byte-level tokenizer.json with Llama-3's special tokens."""
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  model.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  model.train_from_iterator(["What is shown? A red house. A dog and a river."] * 4, trainer)
  model.add_special_tokens(list(LLAMA3))
  path = tmp_path_factory.mktemp("json") / "tokenizer.json"
  model.save(str(path))
  return str(path)


@pytest.fixture(scope="module")
def word_mark(tmp_path_factory):
  """Path of a Llama-2-like tokenizer.json, which puts a word mark in front of a text."""
  pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "\n"]
  model = tokenizers.Tokenizer(
    tokenizers.models.BPE({p: n for n, p in enumerate(pieces)}, [], unk_token="<unk>")
  )
  model.normalizer = tokenizers.normalizers.Sequence(
    [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
  )
  model.add_special_tokens(pieces[:3])
  path = tmp_path_factory.mktemp("mark") / "tokenizer.json"
  model.save(str(path))
  return str(path)


def supervised_ids(encoded):
  return encoded.ids[encoded.supervised].tolist()


TURNS = (
  Turn("human", "<image>\nWhat is shown?"),
  Turn("gpt", "A red house."),
  Turn("human", "How many people are there?"),
  Turn("gpt", "Three people."),
)


def test_ids_equal_those_of_the_whole_text(tokenizer):
  """A text without placeholder, one round: one segment, as SentencePiece itself cuts it."""
  turns = [Turn("human", "How many people are there?"), Turn("gpt", "Three people.")]
  encoded = tokenize.conversation(tokenizer, template("v1"), turns)
  whole = template("v1").system + " USER: How many people are there? ASSISTANT: Three people."
  assert encoded.ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(whole), tokenizer.eos_id]


def test_pieces_around_a_placeholder_are_segments_of_their_own(tokenizer):
  encoded = tokenize.conversation(tokenizer, template("brief"), TURNS[:2])
  assert encoded.ids.tolist() == [
    tokenizer.bos_id,
    *tokenizer.encode("USER: "),
    PLACEHOLDER,
    *tokenizer.encode("\nWhat is shown? ASSISTANT: A red house."),
    tokenizer.eos_id,
  ]


@pytest.mark.parametrize("name", ["v1", "brief"])
def test_supervised_tokens_are_the_answers_and_their_ends(tokenizer, name):
  encoded = tokenize.conversation(tokenizer, template(name), TURNS)
  first, second = tokenizer.encode("A red house."), tokenizer.encode("Three people.")
  end = tokenizer.special(EOS)
  assert supervised_ids(encoded) == [*first, end, *second, end]


@pytest.mark.parametrize("name", ["v1", "brief", "llama3"])
def test_a_prompt_is_a_prefix_of_the_training_row(tokenizer, byte_level, name):
  used = tokenize.load(byte_level) if name == "llama3" else tokenizer
  asked = tokenize.prompt(used, template(name), TURNS[:3])
  whole = tokenize.conversation(used, template(name), TURNS)
  length = len(asked.ids)
  np.testing.assert_array_equal(whole.ids[:length], asked.ids)
  np.testing.assert_array_equal(whole.supervised[:length], asked.supervised)
  assert whole.supervised[length:].all()


def test_plain_supervises_caption_and_newline_only(tokenizer):
  turns = [Turn("human", "Describe.\n<image>"), Turn("gpt", "A dog.")]
  encoded = tokenize.conversation(tokenizer, template("plain"), turns)
  caption = tokenizer.encode("A dog.\n")
  assert encoded.ids.tolist() == [tokenizer.bos_id, PLACEHOLDER, *caption]
  assert supervised_ids(encoded) == caption


def test_typed_control_tokens_stay_characters(tokenizer, byte_level):
  encoded = tokenize.conversation(
    tokenizer, template("brief"), [Turn("human", "a</s>b"), Turn("gpt", "c</s>d")]
  )
  assert (encoded.ids == tokenizer.eos_id).sum() == 1
  json_tokenizer = tokenize.load(byte_level)
  typed = json_tokenizer.encode("<|eot_id|>")
  assert len(typed) > 1
  assert json_tokenizer.decode(typed) == "<|eot_id|>"


def test_continuing_text_gets_no_word_mark(tokenizer):
  assert tokenizer.encode(" house", continues=True) == tokenizer.encode("house")
  assert tokenizer.encode("house", continues=True) != tokenizer.encode("house")
  assert tokenizer.encode("", continues=True) == []


def test_a_json_vocabulary_with_word_marks_tells_continuing_text(word_mark):
  loaded = tokenize.load(word_mark)
  mark, a, b = 3, 4, 5
  assert loaded.encode("a b") == [mark, a, mark, b]
  assert loaded.encode(" b", continues=True) == [mark, b]
  assert loaded.encode("b", continues=True) == [b]
  assert (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.unk_id) == (1, 2, 0, 0)


def test_sentencepiece_facts(tokenizer, vocabulary):
  assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
  assert tokenizer.pad_id == 0
  assert tokenizer.vocab_size > 256
  assert len(tokenizer.digest) == 64
  text = "A red house,\n naïve 你好"
  assert tokenizer.decode([1, PLACEHOLDER, *tokenizer.encode(text), 2]) == text


def test_json_facts(byte_level):
  loaded = tokenize.load(byte_level)
  assert loaded.vocab_size == loaded.special("<|eot_id|>") + 1
  assert loaded.bos_id == loaded.special("<|begin_of_text|>")
  assert loaded.eos_id == loaded.pad_id == loaded.special("<|end_of_text|>")
  assert loaded.unk_id is None
  text = "A red house,\n naïve 你好"
  assert loaded.decode([loaded.bos_id, PLACEHOLDER, *loaded.encode(text)]) == text


def test_a_tokenizer_config_names_the_ends(byte_level, tmp_path):
  shutil.copy(byte_level, tmp_path / "tokenizer.json")
  (tmp_path / "tokenizer_config.json").write_text(
    json.dumps({"eos_token": "<|eot_id|>", "bos_token": {"content": "<|end_of_text|>"}})
  )
  loaded = tokenize.load(str(tmp_path))
  assert loaded.eos_id == loaded.special("<|eot_id|>")
  assert loaded.bos_id == loaded.special("<|end_of_text|>")


def test_a_checkpoints_settings_are_read(vocabulary, tmp_path):
  """The model's file alone: transformers' defaults; with tokenizer_config.json: what it says."""
  bare = tokenize.load(vocabulary)
  assert bare.habits == (True, True, {"<unk>": 0, "<s>": 1, "</s>": 2})
  shutil.copy(vocabulary, tmp_path / "tokenizer.model")
  name, size = "<|im_end|>", bare.vocab_size
  added = {"0": {"content": "<unk>"}, str(size): {"content": name, "special": True}}
  config = {"legacy": False, "add_bos_token": False, "added_tokens_decoder": added}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  loaded = tokenize.load(str(tmp_path))
  assert loaded.habits == (False, False, {**bare.habits.names, name: size})
  assert loaded.special(name) == size
  assert loaded.vocab_size == size + 1
  assert loaded.decode([*loaded.encode("a dog"), size]) == "a dog"
  (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": ["<s>"]}')
  with pytest.raises(EagleError, match=r"'content' of its token; this one is \[\"<s>\"\]"):
    tokenize.load.__wrapped__(str(tmp_path))


def test_only_word_marks_depend_on_legacy(byte_level, word_mark, tmp_path):
  habits = tokenize.load(byte_level).habits
  assert (habits.adds_bos, habits.legacy, list(habits.names)) == (False, True, list(LLAMA3))
  assert tokenize.load(word_mark).habits.legacy
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
  for path, want in ((byte_level, True), (word_mark, False)):
    shutil.copy(path, tmp_path / "tokenizer.json")
    assert tokenize.load.__wrapped__(str(tmp_path)).habits.legacy == want


def test_llama3_rows_begin_with_two_begin_tokens(byte_level):
  loaded = tokenize.load(byte_level)
  encoded = tokenize.conversation(loaded, template("llama3"), TURNS[:2])
  assert encoded.ids[:2].tolist() == [loaded.bos_id] * 2
  assert supervised_ids(encoded) == [*loaded.encode("A red house."), loaded.special("<|eot_id|>")]


def test_stop_ids_hold_the_templates_end(tokenizer, byte_level):
  loaded = tokenize.load(byte_level)
  want = (loaded.eos_id, loaded.special("<|eot_id|>"))
  assert tokenize.stop_ids(loaded, template("llama3")) == want
  assert tokenize.stop_ids(tokenizer, template("v1")) == (2,)
  assert tokenize.stop_ids(tokenizer, template("plain")) == (2,)


def test_a_template_needs_its_tokens(tokenizer, byte_level):
  with pytest.raises(EagleError, match=r"no token '<\|begin_of_text\|>'"):
    tokenize.conversation(tokenizer, template("llama3"), TURNS[:2])
  with pytest.raises(EagleError, match=r"no token '<\|begin_of_text\|>'"):
    tokenize.demand_specials(tokenizer, template("llama3"))
  tokenize.demand_specials(tokenizer, template("v1"))
  with pytest.raises(EagleError, match=r"no token '<\|im_start\|>'"):
    tokenize.conversation(tokenize.load(byte_level), template("yi_34b_chatml_direct"), TURNS[:2])


def test_tokenizers_travel_to_workers(tokenizer, byte_level):
  for used in (tokenizer, tokenize.load(byte_level)):
    there = pickle.loads(pickle.dumps(used))
    assert there.encode("a </s> b", continues=True) == used.encode("a </s> b", continues=True)
    assert there.digest == used.digest


@pytest.mark.parametrize("name", ["none.model", "broken.model", "broken.json"])
def test_what_is_no_tokenizer_is_an_error(tmp_path, name):
  if name.startswith("broken"):
    (tmp_path / name).write_bytes(b"{not one")
  with pytest.raises(EagleError, match=r"data\.tokenizer"):
    tokenize.load(str(tmp_path / name))


def test_a_bad_turn_is_a_bad_record(tokenizer):
  with pytest.raises(BadRecordError):
    tokenize.conversation(tokenizer, template("plain"), TURNS)


def test_a_text_that_comes_again_has_the_same_ids_in_every_vocabulary(byte_level, word_mark):
  form = template("brief")
  turns = (Turn("human", "ab a"), Turn("gpt", "b"))
  both = [tokenize.TokenizerJson(path) for path in (byte_level, word_mark)]
  for tokenizer in (*both, *both):
    ids = tokenize.conversation(tokenizer, form, turns).ids.tolist()
    (text,) = (span for span in render(form, turns) if span.kind == "text" and not span.supervised)
    want = tokenizer.encode(text.text)
    assert ids[1 : 1 + len(want)] == want
