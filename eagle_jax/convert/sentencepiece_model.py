"""A SentencePiece model written from its pieces, in the protocol buffer that is its file.

Source: SentencePiece, sentencepiece_model.proto, numbers of the fields.
"""

import struct
from collections.abc import Iterable, Mapping

CONTROL, BYTE = 3, 6
"""Types of pieces: tokens that no text makes, and single bytes for what no piece writes."""

BPE = 2
"""The kind of model whose pieces are merged in the order of their scores."""

_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_ROLES = {"unk": (40, 45), "bos": (41, 46), "eos": (42, 47), "pad": (43, 48)}
"""Role of a piece → the trainer's fields with its id and its text."""

Piece = tuple[str, float, int]
"""Text, score and type."""


def write(pieces: list[Piece], roles: Mapping[str, int], *, dummy_prefix: bool) -> bytes:
  """Returns the file of a BPE model.

  Args:
    pieces: in the order of their ids.
    roles: 'unk', 'bos', 'eos' and 'pad' → id, as far as there is one.
    dummy_prefix: whether a text gets a space in front.
  """
  has_bytes = any(kind == BYTE for _, _, kind in pieces)
  trainer = [_number(3, BPE), _number(4, len(pieces)), _number(35, has_bytes)]
  for role, (id_field, text_field) in _ROLES.items():
    trainer.append(_number(id_field, roles.get(role, -1)))
    if role in roles:
      trainer.append(_block(text_field, pieces[roles[role]][0].encode()))
  # A Llama's texts are taken as they stand, double spaces included.
  normalizer = [_block(1, b"identity"), _number(3, dummy_prefix), _number(4, False)]
  parts = [_block(_PIECE, _piece(piece)) for piece in pieces]
  parts += [_block(_TRAINER, b"".join(trainer)), _block(_NORMALIZER, b"".join(normalizer))]
  return b"".join(parts)


def _piece(piece: Piece) -> bytes:
  """Returns one piece as a message."""
  text, score, kind = piece
  return _block(1, text.encode()) + _key(2, 5) + struct.pack("<f", score) + _number(3, kind)


def _number(field: int, value: int) -> bytes:
  """Returns a field with a whole number; a negative one is written as 64 bits."""
  return _key(field, 0) + _varint(value % 2**64)


def _block(field: int, contents: bytes) -> bytes:
  """Returns a field with a text or a message."""
  return _key(field, 2) + _varint(len(contents)) + contents


def _key(field: int, wire: int) -> bytes:
  """Returns what stands before a field: its number, and how its value is written."""
  return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
  """Returns a number in groups of seven bits, the lowest first."""
  return bytes(_groups(value))


def _groups(value: int) -> Iterable[int]:
  """Yields the bytes of a number; all but the last have the high bit."""
  while value > 127:
    yield value & 127 | 128
    value >>= 7
  yield value
