"""The demonstration's vocabulary: a SentencePiece model of at most VOCAB pieces."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece

from eagle_jax.errors import EagleError

VOCAB = 512
"""Pieces, those of the language model named 'demo'."""

LINE = 200
"""Characters of the longest training line; SentencePiece skips much longer ones."""

_ASCII = "".join(chr(code) for code in range(33, 127))


def train(lines: Iterable[str], *, vocab: int = VOCAB) -> bytes:
  """Returns the bytes of a byte-pair model trained on the lines; same lines, same bytes.

  Every digit behind a space is one piece, so is the end of a line; whatever is no ASCII
  and not in the lines becomes `<unk>`.

  Args:
    lines: text without ends of lines.
    vocab: pieces in all, special ones included.

  Raises:
    EagleError: if the lines do not give that many pieces.
  """
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_cut(lines),
      model_writer=model,
      model_type="bpe",
      vocab_size=vocab,
      character_coverage=1.0,
      required_chars=_ASCII,
      user_defined_symbols=["\n", *(f"▁{digit}" for digit in range(10))],
      split_digits=True,
      normalization_rule_name="identity",
      remove_extra_whitespaces=False,
      pad_id=3,
      num_threads=1,
      minloglevel=2,
    )
  except RuntimeError as error:
    raise EagleError(f"the demo's tokenizer could not be trained: {error}") from None
  return model.getvalue()


def check_single(model: bytes, words: Sequence[str]) -> None:
  """Demands that each word is one piece where an answer begins: behind `ASSISTANT:` and a space.

  Raises:
    EagleError: naming the words that are more.
  """
  # What follows a cue goes on in a line: no word mark of its own is put in front.
  pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
  cue = "ASSISTANT:"
  before = pieces.encode(cue)
  long = [word for word in words if len(pieces.encode(f"{cue} {word}")) != len(before) + 1]
  if long:
    raise EagleError(f"each answer must be one token, these are more: {', '.join(long)}")


def _cut(lines: Iterable[str]) -> Iterator[str]:
  """Yields the lines in pieces of at most LINE characters, cut at spaces where there are any."""
  for line in lines:
    while len(line) > LINE:
      end = line.rfind(" ", 1, LINE)
      end = LINE if end < 0 else end
      yield line[:end]
      line = line[end:]
    yield line
