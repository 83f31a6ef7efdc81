"""Tokenizers out of GGUF's metadata, against the libraries that wrote or read the originals."""

import json

import pytest
import sentencepiece
import tokenizers

from eagle_jax.convert import gguf_tokenizer
from eagle_jax.data import tokenize
from eagle_jax.errors import EagleError

TEXTS = (
  "Room 1234 costs 56 dollars, isn't it?",
  "  two  spaces\n\nand\ta tab ",
  "größer → 東京 🙂",
  "",
  "<|im_start|>user",
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def trained():
  """A byte-level BPE as SmolLM2's is made, by the library that made that."""
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  steps = [
    tokenizers.pre_tokenizers.Digits(individual_digits=True),
    tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
  ]
  model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
  model.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=280,
    special_tokens=SPECIALS,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  words = ["the room costs 1234 dollars and the tab is there, isn't it"] * 20
  model.train_from_iterator(words, trainer)
  return model


def facts(model, /, **changes):
  """The metadata of a GGUF file with this tokenizer."""
  written = json.loads(model.to_str())["model"]
  vocab = sorted(written["vocab"], key=written["vocab"].get)
  values = {
    "model": "gpt2",
    "pre": "smollm",
    "tokens": vocab,
    "token_type": [3 if token in SPECIALS else 1 for token in vocab],
    "merges": [" ".join(pair) for pair in written["merges"]],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
    **changes,
  }
  return {f"tokenizer.ggml.{key}": value for key, value in values.items() if value is not None}


def loaded(tmp_path, metadata):
  for name, contents in gguf_tokenizer.files(metadata, place="x.gguf").items():
    (tmp_path / name).write_bytes(contents)
  return tokenize.load.__wrapped__(str(tmp_path))


def test_byte_level_bpe_becomes_a_tokenizer_json(trained, tmp_path):
  got = loaded(tmp_path, facts(trained))
  trained.encode_special_tokens = True
  for text in TEXTS:
    ids = got.encode(text)
    assert ids == trained.encode(text).ids
    assert got.decode(ids) == text
  assert (got.bos_id, got.eos_id, got.unk_id, got.pad_id) == (1, 2, 0, 0)
  assert got.vocab_size == trained.get_vocab_size()
  assert got.special("<|im_start|>") == 1
  assert got.decode([1, *got.encode("the room"), 2]) == "the room"


def test_the_way_of_cutting_decides(trained, tmp_path):
  two, one = "ab1234", {}
  for name in ("smollm", "gpt-2", "llama-bpe"):
    (tmp_path / name).mkdir()
    contents = gguf_tokenizer.files(facts(trained, pre=name), place="x")[gguf_tokenizer.TOKENIZER]
    cut = tokenizers.Tokenizer.from_str(contents.decode()).pre_tokenizer
    one[name] = [piece for piece, _ in cut.pre_tokenize_str(two)]
  assert one == {
    "smollm": ["ab", "1", "2", "3", "4"],
    "gpt-2": ["ab", "1234"],
    "llama-bpe": ["ab", "123", "4"],
  }


def test_a_chat_template_goes_with_it(trained):
  metadata = facts(trained) | {"tokenizer.chat_template": "{{ messages }}"}
  written = gguf_tokenizer.files(metadata, place="x")[gguf_tokenizer.TOKENIZER_CONFIG]
  assert json.loads(written) == {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "chat_template": "{{ messages }}",
  }


def test_without_types_no_token_is_special(trained):
  metadata = facts(trained, token_type=None)
  written = gguf_tokenizer.files(metadata, place="x")[gguf_tokenizer.TOKENIZER]
  assert json.loads(written)["added_tokens"] == []


def test_a_file_without_a_tokenizer_has_no_such_files():
  assert gguf_tokenizer.files({"general.architecture": "llama"}, place="x") == {}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model": "t5"}, "x: tokenizer.ggml.model is 't5', known are gpt2, llama"),
    ({"model": ["gpt2"]}, r"model is \['gpt2'\], known are gpt2, llama"),
    ({"pre": "smolm"}, "did you mean 'smollm'"),
    ({"tokens": None}, "tokens must be a list of str"),
    ({"tokens": ["a", 3]}, "tokens must be a list of str"),
    ({"merges": "a b"}, "merges must be a list of str"),
    ({"merges": ["ab"]}, "merge 'ab' must be of two tokens"),
    ({"merges": ["t h e"]}, "merge 't h e' must be of two tokens"),
    ({"merges": ["t zzz"]}, "merge 't zzz' must be of two tokens"),
    ({"merges": ["Q Q"]}, "that make a third"),
    ({"token_type": [1]}, "token_type has 1 values, there are 280 tokens"),
    ({"token_type": [1.0] * 280}, "token_type must be a list of int"),
    ({"eos_token_id": 280}, "eos_token_id must be below 280, it is 280"),
    ({"eos_token_id": -1}, "eos_token_id must be below 280, it is -1"),
    ({"eos_token_id": "2"}, "eos_token_id must be below 280, it is '2'"),
    ({"tokens": ["a", "a"], "token_type": [1, 1], "merges": []}, "1 of its tokens are given twice"),
  ],
)
def test_a_tokenizer_that_contradicts_itself_is_told(trained, changes, message):
  if "tokens" in changes:
    changes = {"bos_token_id": None, "eos_token_id": 1, **changes}
  with pytest.raises(EagleError, match=message):
    gguf_tokenizer.files(facts(trained, **changes), place="x")


def test_pieces_of_llama_become_a_tokenizer_model(sentences, tmp_path):
  metadata = {
    "model": "llama",
    "tokens": [sentences.id_to_piece(i) for i in range(len(sentences))],
    "scores": [sentences.get_score(i) for i in range(len(sentences))],
    "token_type": [kind(sentences, i) for i in range(len(sentences))],
    "unknown_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
  }
  got = loaded(tmp_path, {f"tokenizer.ggml.{key}": value for key, value in metadata.items()})
  for text in TEXTS:
    assert got.encode(text) == sentences.encode(text)
  assert (got.unk_id, got.bos_id, got.eos_id) == (0, 1, 2)
  for scores, message in [([0.0], "has 1 values"), ([1e300] * len(sentences), "float32")]:
    changed = metadata | {"scores": scores}
    with pytest.raises(EagleError, match=f"scores .*{message}"):
      loaded(tmp_path, {f"tokenizer.ggml.{key}": value for key, value in changed.items()})


def kind(model, index):
  """The type of a piece, as both formats number them."""
  kinds = {2: model.is_unknown, 3: model.is_control, 6: model.is_byte}
  return next((number for number, asked in kinds.items() if asked(index)), 1)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
  """A SentencePiece model as Llama-2's is made."""
  folder = tmp_path_factory.mktemp("sentences")
  lines = ["the room costs 1234 dollars and the tab is there, isn't it"] * 20
  (folder / "text").write_text("\n".join(lines))
  sentencepiece.SentencePieceTrainer.train(
    input=str(folder / "text"),
    model_prefix=str(folder / "m"),
    model_type="bpe",
    vocab_size=330,
    byte_fallback=True,
    split_digits=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    minloglevel=2,
  )
  return sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))
