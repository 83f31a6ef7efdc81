"""A SentencePiece model written by hand, read by the library."""

import pytest
import sentencepiece

from eagle_jax.convert import sentencepiece_model

NORMAL, UNKNOWN = 1, 2
PIECES = [
  ("<unk>", 0.0, UNKNOWN),
  ("[BEGIN]", 0.0, sentencepiece_model.CONTROL),
  ("[END]", 0.0, sentencepiece_model.CONTROL),
  ("ab", -1.0, NORMAL),
  ("▁ab", -2.0, NORMAL),
  ("a", -3.0, NORMAL),
  ("b", -4.0, NORMAL),
  ("▁", -5.0, NORMAL),
]
BYTES = [(f"<0x{n:02X}>", 0.0, sentencepiece_model.BYTE) for n in range(256)]


def load(pieces, dummy_prefix=True, **roles):
  proto = sentencepiece_model.write(pieces, {"unk": 0, **roles}, dummy_prefix=dummy_prefix)
  return sentencepiece.SentencePieceProcessor(model_proto=proto)


@pytest.mark.parametrize(
  ("dummy_prefix", "text", "pieces"),
  [
    (True, "ab ab", ["▁ab", "▁ab"]),
    (False, "ab ab", ["ab", "▁ab"]),
    (True, "  abb", ["▁", "▁", "▁ab", "b"]),
  ],
)
def test_scores_decide_and_spaces_stand(dummy_prefix, text, pieces):
  model = load(PIECES, dummy_prefix)
  assert model.encode(text, out_type=str) == pieces
  assert model.decode(model.encode(text)) == text


def test_roles_are_those_given():
  model = load(PIECES, bos=1, eos=2)
  assert (model.unk_id(), model.bos_id(), model.eos_id(), model.pad_id()) == (0, 1, 2, -1)
  assert model.is_control(1)
  assert len(model) == len(PIECES)


def test_bytes_stand_in_for_what_no_piece_writes():
  assert load(PIECES).encode("aé")[-1] == 0
  model = load(PIECES + BYTES)
  assert model.encode("aé", out_type=str) == ["▁", "a", "<0xC3>", "<0xA9>"]
  assert model.decode(model.encode("aé")) == "aé"
