import numpy as np
import pytest
import sentencepiece

from eagle_jax.data import conversation, records, tokenize
from eagle_jax.demo import text, tokenizer
from eagle_jax.demo.records import TASKS, turns
from eagle_jax.errors import EagleError
from eagle_jax.types import PLACEHOLDER

for package in ("sklearn", "skimage", "vega_datasets", "matplotlib"):
  pytest.importorskip(package)


@pytest.fixture(scope="module")
def lines():
  return list(text.lines(3000, 0))


@pytest.fixture(scope="module")
def model(lines):
  return tokenizer.train(lines)


@pytest.fixture(scope="module")
def loaded(model, tmp_path_factory):
  path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
  path.write_bytes(model)
  return tokenize.load(str(path))


def _encode(loaded, question, answer):
  entry = {"image": "x.png", "conversations": turns(question, answer)}
  if "<image>" not in question:
    del entry["image"]
  record = records.parse(entry, "file", 1)
  return tokenize.conversation(loaded, conversation.template("brief"), record.turns)


def test_the_same_lines_give_the_same_bytes(lines, model):
  assert tokenizer.train(lines) == model


def test_the_vocabulary_has_its_size_and_special_ids(model):
  pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
  assert pieces.vocab_size() == tokenizer.VOCAB
  assert (pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), pieces.pad_id()) == (0, 1, 2, 3)


def test_answers_and_descriptions_are_single_pieces(model):
  tokenizer.check_single(model, text.single_pieces())
  with pytest.raises(EagleError, match="hippopotamus"):
    tokenizer.check_single(model, ["7", "hippopotamus"])


@pytest.mark.parametrize("answer", ["0", "7", "right", "below", "corner", "red", "yellow", "made"])
def test_one_token_and_the_end_are_the_whole_target(loaded, answer):
  encoded = _encode(loaded, "<image>\nWhich digit is this?", answer)
  assert encoded.supervised.sum() == 2
  assert encoded.ids[-1] == loaded.eos_id
  assert loaded.decode(encoded.ids[-2:]) == answer


def test_ascii_comes_back_and_nothing_known_is_unknown(loaded):
  plain = "".join(chr(code) for code in range(32, 127)).strip()
  ids = loaded.encode(plain)
  assert loaded.unk_id not in ids
  assert loaded.decode(ids) == plain


def test_words_stand_exactly_where_image_tokens_will(loaded):
  for task in TASKS:
    shown, question, answer = text.DRAWS[task](np.random.default_rng(0))
    seen = _encode(loaded, f"<image>\n{question}", answer)
    told = _encode(loaded, text.message(shown, question), answer)
    place = int(np.flatnonzero(seen.ids == PLACEHOLDER)[0])
    size = len(told.ids) - len(seen.ids) + 1
    assert size == text.SLOTS
    np.testing.assert_array_equal(told.ids[:place], seen.ids[:place])
    np.testing.assert_array_equal(told.ids[place + size :], seen.ids[place + 1 :])


def test_too_little_text_is_said():
  with pytest.raises(EagleError, match="could not be trained"):
    tokenizer.train(["a b"])


def test_long_lines_are_cut_at_spaces_and_nothing_is_lost():
  line = "word " * 100 + "x" * 300
  pieces = list(tokenizer._cut([line]))
  assert "".join(pieces) == line
  assert max(map(len, pieces)) <= tokenizer.LINE
