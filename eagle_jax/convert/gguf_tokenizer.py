"""The tokenizer inside a GGUF file, as the files that tokenizers are otherwise read from.

Byte-level BPE, as GPT-2's, Llama-3's and SmolLM2's is, becomes a tokenizer.json: tokens
and merges stand in the metadata as they do there; how text is cut before merging stands
in them as a name only. The pieces of Llama-2's family become a tokenizer.model.

Source: ggml, docs/gguf.md; llama.cpp, names of `tokenizer.ggml.pre`; the tokenizer.json
of the public models, for what these names mean.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eagle_jax.convert import sentencepiece_model
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

PIECES = "tokenizer.model"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
KEY = "tokenizer.ggml."
"""What the metadata's keys about the tokenizer begin with."""

_LARGEST = float(np.finfo(np.float32).max)
"""Largest score that a SentencePiece model can hold."""

_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens that no merge makes; the first are left out of decoded text."""

_ROLES = {
  "bos": "bos_token_id",
  "eos": "eos_token_id",
  "unk": "unknown_token_id",
  "pad": "padding_token_id",
}
"""What a token is for → key of its id in the metadata."""


def _bytes(use_regex: bool) -> dict[str, Any]:
  """Returns the step that writes bytes as characters, and may cut words as GPT-2 does."""
  return {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": use_regex,
  }


_LLAMA3_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_CUTS: Mapping[str, tuple[dict[str, Any], ...]] = {
  "gpt-2": (_bytes(use_regex=True),),
  "smollm": ({"type": "Digits", "individual_digits": True}, _bytes(use_regex=True)),
  "llama-bpe": (
    {
      "type": "Split",
      "pattern": {"Regex": _LLAMA3_WORDS},
      "behavior": "Isolated",
      "invert": False,
    },
    _bytes(use_regex=False),
  ),
}
"""`tokenizer.ggml.pre` → the steps that cut a text before merging."""

_WHOLE_WORDS = ("llama-bpe",)
"""Those whose words that are tokens themselves are not merged."""


def files(metadata: Mapping[str, Any], *, place: str) -> dict[str, bytes]:
  """Returns name → contents of the files of a tokenizer.

  Args:
    metadata: of a GGUF file.
    place: how messages call the file.

  Returns:
    Nothing for a file without a tokenizer.

  Raises:
    EagleError: if it is of a kind that is not known here, or contradicts itself.
  """
  model = metadata.get(f"{KEY}model")
  if model is None:
    return {}
  if not isinstance(model, str) or model not in _KINDS:
    known = ", ".join(_KINDS)
    raise EagleError(f"{place}: {KEY}model is {model!r}, known are {known}")
  tokens = _list(metadata, "tokens", str, place=place)
  name, make = _KINDS[model]
  config = _config(metadata, tokens, place=place)
  return {name: make(metadata, tokens, place=place), TOKENIZER_CONFIG: _json(config)}


def _json(contents: Mapping[str, Any]) -> bytes:
  """Returns the bytes of a JSON file."""
  return json.dumps(contents, ensure_ascii=False, indent=1).encode()


def _pieces(metadata: Mapping[str, Any], tokens: list[str], *, place: str) -> bytes:
  """Returns the contents of tokenizer.model."""
  scores = _list(metadata, "scores", float, place=place, length=len(tokens))
  types = _list(metadata, "token_type", int, place=place, length=len(tokens))
  if not all(abs(score) <= _LARGEST for score in scores):
    raise EagleError(f"{place}: {KEY}scores must be finite numbers of float32")
  return sentencepiece_model.write(
    list(zip(tokens, scores, types, strict=True)),
    _roles(metadata, len(tokens), place=place),
    dummy_prefix=bool(metadata.get(f"{KEY}add_space_prefix", True)),
  )


def _tokenizer(metadata: Mapping[str, Any], tokens: list[str], *, place: str) -> bytes:
  """Returns the contents of tokenizer.json."""
  cut = metadata.get(f"{KEY}pre", "gpt-2")
  steps = lookup(_CUTS, str(cut), what="GGUF pre-tokenizer")
  vocab = {token: index for index, token in enumerate(tokens)}
  if len(vocab) != len(tokens):
    raise EagleError(f"{place}: {len(tokens) - len(vocab)} of its tokens are given twice")
  merges = _list(metadata, "merges", str, place=place)
  contents = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": _added(metadata, tokens, place=place),
    "normalizer": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)},
    "post_processor": None,
    "decoder": _bytes(use_regex=True),
    "model": {
      "type": "BPE",
      "dropout": None,
      "unk_token": None,
      "continuing_subword_prefix": None,
      "end_of_word_suffix": None,
      "fuse_unk": False,
      "byte_fallback": False,
      "ignore_merges": cut in _WHOLE_WORDS,
      "vocab": vocab,
      "merges": [_merge(text, vocab, place) for text in merges],
    },
  }
  return _json(contents)


def _merge(text: str, vocab: Mapping[str, int], place: str) -> list[str]:
  """Returns the two tokens of a merge; they and what they make must be tokens."""
  pair = text.split(" ")
  if len(pair) != 2 or any(token not in vocab for token in (*pair, "".join(pair))):
    raise EagleError(f"{place}: merge {text!r} must be of two tokens that make a third")
  return pair


def _added(metadata: Mapping[str, Any], tokens: list[str], *, place: str) -> list[dict[str, Any]]:
  """Returns the tokens that are found in a text before it is cut."""
  if f"{KEY}token_type" not in metadata:
    return []
  types = _list(metadata, "token_type", int, place=place, length=len(tokens))
  return [
    {
      "id": index,
      "content": tokens[index],
      "single_word": False,
      "lstrip": False,
      "rstrip": False,
      "normalized": False,
      "special": kind == _CONTROL,
    }
    for index, kind in enumerate(types)
    if kind in (_CONTROL, _USER_DEFINED)
  ]


def _config(metadata: Mapping[str, Any], tokens: list[str], *, place: str) -> dict[str, Any]:
  """Returns the contents of tokenizer_config.json: what tokens are for, chat template."""
  roles = _roles(metadata, len(tokens), place=place)
  found = {f"{role}_token": tokens[index] for role, index in roles.items()}
  template = metadata.get("tokenizer.chat_template")
  return found if template is None else {**found, "chat_template": template}


def _roles(metadata: Mapping[str, Any], count: int, *, place: str) -> dict[str, int]:
  """Returns what a token is for → its id, which must be below `count`."""
  found = {role: metadata[KEY + key] for role, key in _ROLES.items() if KEY + key in metadata}
  for role, index in found.items():
    if type(index) is not int or not 0 <= index < count:
      raise EagleError(f"{place}: {KEY}{_ROLES[role]} must be below {count}, it is {index!r}")
  return found


def _list(
  metadata: Mapping[str, Any], key: str, kind: type, *, place: str, length: int | None = None
) -> list[Any]:
  """Returns a list of values of one type, and of a length if one is given."""
  found = metadata.get(KEY + key)
  if not isinstance(found, list) or any(type(value) is not kind for value in found):
    raise EagleError(f"{place}: {KEY}{key} must be a list of {kind.__name__}")
  if length is not None and len(found) != length:
    raise EagleError(f"{place}: {KEY}{key} has {len(found)} values, there are {length} tokens")
  return found


_KINDS: Mapping[str, tuple[str, Callable[..., bytes]]] = {
  "gpt2": (TOKENIZER, _tokenizer),
  "llama": (PIECES, _pieces),
}
"""`tokenizer.ggml.model` → the file it becomes, and what makes its contents."""
