"""Conversations to token ids with a mask built span by span.

Every span is encoded on its own, so which tokens are targets is known when they are
made, and a prompt is always the exact beginning of what was trained on. On ordinary
text the ids equal those of tokenising the pieces between placeholders whole.

Source: EAGLE, mm_utils.py, tokenizer_image_token: each piece between placeholders opens
a segment of its own; Hugging Face's slow Llama tokenizer with legacy=False: text after a
special token goes on without a new word mark.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from eagle_jax.data.conversation import BOS, EOS, Span, Template, render
from eagle_jax.data.records import Turn
from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest
from eagle_jax.types import PLACEHOLDER

if typing.TYPE_CHECKING:
  from jaxtyping import Bool, Int32

_WORD_MARK = "▁"  # what SentencePiece writes for a space
# Field 3 (normalizer_spec) of a SentencePiece model: add_dummy_prefix (3) and
# remove_extra_whitespaces (4) false. Appended to the model's bytes it overrides both,
# since a protocol buffer takes the last value it meets.
_AS_IT_STANDS = b"\x1a\x04\x18\x00\x20\x00"
_KNOWN_LENGTH = 256  # characters of a text whose ids are kept
_BEGIN_NAMES = ("<|begin_of_text|>", "<s>", "<bos>", "[BOS]")
_END_NAMES = ("<|end_of_text|>", "</s>", "<eos>", "<|endoftext|>", "[EOS]")
_PAD_NAMES = ("<pad>", "<|finetune_right_pad_id|>", "[PAD]", "<|pad|>")


class Encoded(NamedTuple):
  """A conversation as ids; one PLACEHOLDER stands for one whole picture."""

  ids: Int32[np.ndarray, " s"]
  supervised: Bool[np.ndarray, " s"]


class Habits(NamedTuple):
  """How transformers treats a text that it reads with the same files.

  Only the original's way of encoding asks; here spans say what is a token.

  Attributes:
    adds_bos: puts the begin token in front of every text.
    legacy: every piece between tokens opens a word, not the first one alone.
    names: what it takes for one token wherever a text says it, and that token's id.
  """

  adds_bos: bool
  legacy: bool
  names: Mapping[str, int]


class Tokenizer(Protocol):
  """What the project needs of a vocabulary.

  Attributes:
    bos_id: begin of text, None where the vocabulary has none.
    eos_id: end of text.
    pad_id: fills rows; never looked at, since `valid` marks what counts.
    unk_id: stands for what the vocabulary cannot write, None where it can write all.
    vocab_size: ids are below it.
    digest: SHA-256 of the file, in hexadecimal: the tokenizer's identity.
    habits: what transformers would do with it.
  """

  bos_id: int | None
  eos_id: int
  pad_id: int
  unk_id: int | None
  vocab_size: int
  digest: str
  habits: Habits

  def __hash__(self) -> int:
    """Returns anything that is the same as long as the vocabulary is."""

  def encode(self, text: str, *, continues: bool = False) -> list[int]:
    """Returns ids without begin or end token.

    Args:
      text: plain; names of special tokens in it are characters like any other.
      continues: the text goes on where other text ended, so it opens no word.
    """

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens left out."""

  def special(self, name: str) -> int:
    """Returns the id of one special token, an EagleError where there is none."""


class SentencePiece:
  """A SentencePiece model, as the Llama, Vicuna and Yi families use.

  Tokens that a tokenizer_config.json beside it adds to the model's are known by name.
  """

  def __init__(self, path: str):
    """Reads the model of a file; a broken one is an EagleError."""
    import sentencepiece

    proto = _read(path)
    self._path = path
    try:
      self._opening = sentencepiece.SentencePieceProcessor(model_proto=proto)
      self._continuing = sentencepiece.SentencePieceProcessor(model_proto=proto + _AS_IT_STANDS)
    except RuntimeError as error:
      raise EagleError(f"data.tokenizer {path!r} is no SentencePiece model: {error}") from None
    model = self._opening
    self.bos_id: int | None = model.bos_id() if model.bos_id() >= 0 else None
    self.eos_id: int = model.eos_id()
    self.unk_id: int | None = model.unk_id()
    self.pad_id: int = model.pad_id() if model.pad_id() >= 0 else model.unk_id()
    self.digest = hashlib.sha256(proto).hexdigest()
    if self.eos_id < 0:
      raise EagleError(f"data.tokenizer {path!r} has no end token: train it with an eos_id")
    config = _config_beside(path)
    own = [i for i in (self.unk_id, self.bos_id, self.eos_id) if i is not None]
    names = {model.id_to_piece(i): i for i in own} | _added(config)
    self.vocab_size: int = max(model.vocab_size(), *(i + 1 for i in names.values()))
    begins = config.get("add_bos_token", True) and self.bos_id is not None
    self.habits = Habits(bool(begins), _legacy(config), names)

  def __reduce__(self) -> tuple[Any, ...]:
    return SentencePiece, (self._path,)

  def encode(self, text: str, *, continues: bool = False) -> list[int]:
    """Returns ids; a text that opens a segment gets the model's word mark in front."""
    return (self._continuing if continues else self._opening).encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens and placeholders left out."""
    return self._opening.decode([int(i) for i in ids if 0 <= i < self._opening.vocab_size()])

  def special(self, name: str) -> int:
    """Returns the id of a piece; BOS and EOS are the model's own, whatever their names."""
    own = {BOS: self.bos_id, EOS: self.eos_id}.get(name, self.habits.names.get(name))
    found = self._opening.piece_to_id(name) if own is None else own
    if own is None and self._opening.id_to_piece(found) != name:
      raise EagleError(
        f"data.tokenizer {self._path!r} has no token {name!r}, the template needs it"
      )
    return found


class TokenizerJson:
  """A tokenizer.json, as the Llama-3 family uses.

  Which tokens begin and end a text is read from a tokenizer_config.json beside it, and
  without one found by the usual names.
  """

  def __init__(self, path: str):
    """Reads the file; a broken one, or one without an end token, is an EagleError."""
    import tokenizers

    self._path = path
    data = _read(path)
    try:
      self._model = tokenizers.Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises plain Exception for a broken file
      raise EagleError(f"data.tokenizer {path!r} is no tokenizer.json: {error}") from None
    self._model.no_padding()
    self._model.no_truncation()
    # What a user types must not become a control token.
    self._model.encode_special_tokens = True
    config = _config_beside(path)
    end = self._named(config.get("eos_token"), _END_NAMES)
    if end is None:
      raise EagleError(f"data.tokenizer {path!r} has no end token, known: {', '.join(_END_NAMES)}")
    self.bos_id = self._named(config.get("bos_token"), _BEGIN_NAMES)
    self.eos_id: int = end
    self.unk_id = self._named(config.get("unk_token"), ("<unk>", "[UNK]"))
    pad = self._named(config.get("pad_token"), _PAD_NAMES)
    self.pad_id: int = next(i for i in (pad, self.unk_id, end) if i is not None)
    # Ids may have gaps, and a model needs a row for the highest.
    self.vocab_size = max(self._model.get_vocab(with_added_tokens=True).values()) + 1
    self.digest = hashlib.sha256(data).hexdigest()
    self._marks_words = self._model.encode("a", add_special_tokens=False).tokens[:1] in (
      [_WORD_MARK],
      [_WORD_MARK + "a"],
    )
    added = self._model.get_added_tokens_decoder()
    begun = self._model.encode("", add_special_tokens=True).ids[:1]
    self.habits = Habits(
      self.bos_id is not None and begun == [self.bos_id],
      # Without word marks a piece is the same wherever it stands.
      _legacy(config) if self._marks_words else True,
      {token.content: i for i, token in added.items()},
    )

  def __reduce__(self) -> tuple[Any, ...]:
    return TokenizerJson, (self._path,)

  def encode(self, text: str, *, continues: bool = False) -> list[int]:
    """Returns ids; only vocabularies that mark words tell an opening text from another."""
    if continues and self._marks_words:
      return self._ids("\n" + text)[len(self._ids("\n")) :]
    return self._ids(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids, special tokens and placeholders left out."""
    return self._model.decode([int(i) for i in ids if i >= 0], skip_special_tokens=True)

  def special(self, name: str) -> int:
    """Returns the id of a token; BOS and EOS are the tokenizer's own, whatever their names."""
    own = {BOS: self.bos_id, EOS: self.eos_id}.get(name)
    found = self._model.token_to_id(name) if own is None else own
    if found is None:
      known = [token.content for token in self._model.get_added_tokens_decoder().values()]
      raise EagleError(
        f"data.tokenizer {self._path!r} has no token {name!r}{nearest(name, known) or '.'} "
        "The template needs it."
      )
    return found

  def _ids(self, text: str) -> list[int]:
    """Returns the ids of a text that opens a segment."""
    return self._model.encode(text, add_special_tokens=False).ids

  def _named(self, configured: Any, usual: Sequence[str]) -> int | None:
    """Returns the id of the configured token, else of the first usual name there is."""
    name = configured.get("content") if isinstance(configured, dict) else configured
    ids = (self._model.token_to_id(n) for n in ([name] if name else usual))
    return next((i for i in ids if i is not None), None)


@functools.lru_cache(maxsize=4)
def load(path: str) -> Tokenizer:
  """Returns the tokenizer of a file, or of a folder that holds one.

  Args:
    path: a SentencePiece .model, a tokenizer.json, or a folder with tokenizer.model or
      tokenizer.json in it, the first preferred.

  Raises:
    EagleError: if there is none.
  """
  if os.path.isdir(path):
    inside = [os.path.join(path, name) for name in ("tokenizer.model", "tokenizer.json")]
    path = next((name for name in inside if os.path.isfile(name)), inside[0])
  if not os.path.isfile(path):
    raise EagleError(f"data.tokenizer must name a .model or .json file, {path!r} is none")
  if path.endswith(".json"):
    return TokenizerJson(path)
  return SentencePiece(path)


def conversation(tokenizer: Tokenizer, form: Template, turns: Sequence[Turn]) -> Encoded:
  """Encodes a conversation to train on: answers and what ends them are supervised."""
  return encode(tokenizer, render(form, turns), opens=form.opens)


def prompt(tokenizer: Tokenizer, form: Template, turns: Sequence[Turn]) -> Encoded:
  """Encodes a conversation that asks for an answer to its last turn."""
  return encode(tokenizer, render(form, turns, ask=True), opens=form.opens)


def demand_specials(tokenizer: Tokenizer, form: Template) -> None:
  """Checks that the vocabulary has every special token of a template.

  Raises:
    EagleError: naming the first it lacks.
  """
  for name in (*form.specials, *((BOS,) if form.bos else ())):
    tokenizer.special(name)


def stop_ids(tokenizer: Tokenizer, form: Template) -> tuple[int, ...]:
  """Returns the ids that end an answer: the tokenizer's own and the template's."""
  ends = [tokenizer.special(name) for name in form.specials if form.end.endswith(name)]
  return tuple(dict.fromkeys([tokenizer.eos_id, *ends]))


def encode(tokenizer: Tokenizer, spans: Sequence[Span], *, opens: bool = False) -> Encoded:
  """Encodes rendered spans.

  Args:
    tokenizer: the vocabulary.
    spans: a conversation.
    opens: text after a special token opens a word.

  Raises:
    EagleError: if the vocabulary lacks a special token of the template.
  """
  ids: list[int] = []
  supervised: list[bool] = []
  continues = False
  for span in spans:
    if span.kind == "image":
      piece, continues = [PLACEHOLDER], False
    elif span.kind == "special":
      piece = [tokenizer.special(span.text)]
      # The begin token is put in front of the finished text and ends no word.
      continues = not opens and (continues or span.text != BOS)
    else:
      # Answers differ; what a template writes comes again in every conversation.
      if span.supervised or len(span.text) > _KNOWN_LENGTH:
        piece = tokenizer.encode(span.text, continues=continues)
      else:
        piece = _known(tokenizer, span.text, continues=continues)
      continues = True
    ids += piece
    supervised += [span.supervised] * len(piece)
  return Encoded(np.array(ids, np.int32), np.array(supervised, bool))


@functools.lru_cache(maxsize=512)
def _known(tokenizer: Tokenizer, text: str, *, continues: bool) -> list[int]:
  """Returns what `tokenizer.encode` does, of the texts that came last; not to be changed."""
  return tokenizer.encode(text, continues=continues)


def _read(path: str) -> bytes:
  """Returns the bytes of a tokenizer's file."""
  try:
    with open(path, "rb") as file:
      return file.read()
  except OSError as error:
    raise EagleError(f"data.tokenizer {path!r} cannot be read: {error.strerror}") from None


def _config_beside(path: str) -> dict[str, Any]:
  """Returns the tokenizer_config.json of the same folder, empty where there is none."""
  name = os.path.join(os.path.dirname(path), "tokenizer_config.json")
  if not os.path.isfile(name):
    return {}
  try:
    found = json.loads(_read(name))
  except ValueError as error:
    raise EagleError(f"{name!r} is no valid JSON: {error}") from None
  return found if isinstance(found, dict) else {}


def _legacy(config: Mapping[str, Any]) -> bool:
  """Returns the `legacy` of a tokenizer_config.json; transformers takes none for True."""
  return config.get("legacy") is not False


def _added(config: Mapping[str, Any]) -> dict[str, int]:
  """Returns the tokens that a tokenizer_config.json names, each with its id."""
  entries = config.get("added_tokens_decoder") or {}
  try:
    return {entry["content"]: int(i) for i, entry in entries.items()}
  except (AttributeError, KeyError, TypeError, ValueError):
    raise EagleError(
      "added_tokens_decoder of a tokenizer_config.json holds ids, each with the 'content' of "
      f"its token; this one is {json.dumps(entries)[:60]}"
    ) from None
