"""Conversations to token ids and masks exactly as the original makes them: compat="upstream".

The original writes a conversation as one text, tokenises that, and finds its answers by
tokenising parts of the text again and counting. Where the counts do not add up, it
trains on nothing of the sample. All of that is repeated here, for runs that must see
what the original saw; `tokenize.py` needs none of it and is what new work uses.

Source: EAGLE, train_mem.py (preprocess_*), mm_utils.py (tokenizer_image_token) and
conversation.py; transformers, LlamaTokenizer.
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from eagle_jax.data import tokenize
from eagle_jax.data.conversation import TEMPLATES, Template, demand_caption, one_image_first
from eagle_jax.data.records import IMAGE, BadRecordError, Turn
from eagle_jax.data.tokenize import Encoded, Tokenizer
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup
from eagle_jax.types import PLACEHOLDER

if typing.TYPE_CHECKING:
  from jaxtyping import Bool, Int32

_WORD_MARK = "▁"  # what SentencePiece writes for a space
_PAD = "<pad>"  # what the original adds to a vocabulary without an unknown token


class Encoder(Protocol):
  """A way of turning a conversation into ids and a mask."""

  def __call__(
    self, tokenizer: Tokenizer, form: Template, turns: Sequence[Turn], *, max_length: int
  ) -> Encoded:
    """Encodes the turns of a record to train on; max_length is that of the row, in tokens."""


class Prompter(Protocol):
  """A way of turning a conversation that asks for an answer into ids."""

  def __call__(self, tokenizer: Tokenizer, form: Template, turns: Sequence[Turn]) -> Encoded:
    """Encodes turns of which the last one is human."""


class Labelled(NamedTuple):
  """A conversation as the original's data set returns it, before batches are formed.

  Attributes:
    ids: one PLACEHOLDER per picture.
    supervised: where the original's label is the id; elsewhere it is -100.
    mismatch: the counts did not add up, so nothing is supervised.
  """

  ids: Int32[np.ndarray, " s"]
  supervised: Bool[np.ndarray, " s"]
  mismatch: bool = False


class Collated(NamedTuple):
  """A row of the original's batch, without the padding at its end.

  Attributes:
    ids: at most max_length of them.
    supervised: as in Labelled.
    attention: False at every id that equals the padding's, also in the middle of a text;
      the original removes these positions before pictures are put in.
  """

  ids: Int32[np.ndarray, " s"]
  supervised: Bool[np.ndarray, " s"]
  attention: Bool[np.ndarray, " s"]


class _Rule(NamedTuple):
  """How the original counts the tokens of a conversation's rounds.

  Attributes:
    start: ids in front of the first round.
    first: pieces between ends of turns that make up the first round.
    later: the same for each round after it.
    whole: added to the tokens of a round, to reach the next.
    asked: added to the tokens up to the answer, which are not supervised.
    correction: added to both, from (is a later round, tokenizer is legacy).
  """

  start: int
  first: int
  later: int
  whole: int
  asked: int
  correction: Callable[[bool, bool], int]


_RULES = {
  # Two less: the begin token and the space that ends the question. A later round of a
  # tokenizer that is not legacy: one less, right only if "USER" alone is one token fewer
  # than at the beginning of a text.
  "v1": _Rule(1, 1, 1, 0, -2, lambda later, legacy: -int(later and not legacy)),
  # One more: the end of a turn, which splitting took away. Later: a begin token too many.
  "llama3": _Rule(0, 3, 2, 1, 0, lambda later, legacy: -int(later)),
  # Right for a legacy tokenizer, to which one is added; with any other the end of a turn
  # is not counted, and nothing ever adds up.
  "yi": _Rule(0, 3, 2, 0, -1, lambda later, legacy: int(legacy)),
}


def encoder(compat: str, form: Template) -> Encoder:
  """Returns the way of encoding that a `data.compat` asks for.

  Args:
    compat: '' for masks built span by span, 'upstream' for the original's.
    form: the template that it will meet.

  Raises:
    EagleError: if there is no such way, or the original has no such template.
  """
  found = lookup(ENCODERS, compat, what="data.compat")
  if found is conversation and not form.original:
    known = ", ".join(name for name, template in TEMPLATES.items() if template.original)
    raise EagleError(
      f'data.compat "upstream" needs a data.template that the original has, known: {known}'
    )
  return found


def conversation(
  tokenizer: Tokenizer, form: Template, turns: Sequence[Turn], *, max_length: int
) -> Encoded:
  """Encodes a conversation as it enters the original's model.

  Cut to max_length ids before pictures take their N positions each (a second cut follows
  when they do), without the ids that equal the padding's. A cut may take placeholders
  with it: only as many pictures as are left belong to the row.

  Raises:
    BadRecordError: if the original would not keep one placeholder per picture, so that
      rows would take the pictures of others.
  """
  has_image = any(IMAGE in turn.text for turn in turns)
  pictures = sum(turn.text.count(IMAGE) for turn in turns)
  kept = sum(turn.text.count(IMAGE) for turn in repaired(turns, has_image=has_image))
  if kept != pictures:
    raise BadRecordError(
      "the original loses count of the images",
      f"of {pictures} {IMAGE} it makes {kept}: it takes one per message, one of them in the first",
    )
  made = labelled(tokenizer, form, turns, has_image=has_image, max_length=max_length)
  row = collated(made, pad_id=pad_id(tokenizer), max_length=max_length)
  return Encoded(row.ids[row.attention], row.supervised[row.attention])


def prompt(tokenizer: Tokenizer, form: Template, turns: Sequence[Turn]) -> Encoded:
  """Encodes a conversation as the original's evaluation asks for an answer to it.

  Placeholders stay where the text has them, other than in training. Ids that equal the
  padding's are left out, for the mask that the evaluation makes hides them.

  Source: EAGLE, the adapter of its lmms-eval.

  Raises:
    BadRecordError: if a caption template meets more than a picture.
  """
  ids = np.array(chunked(tokenizer, written(form, turns, ask=True)), np.int32)
  ids = ids[ids != pad_id(tokenizer)]
  return Encoded(ids, np.zeros(len(ids), bool))


def prompter(compat: str, form: Template) -> Prompter:
  """Returns the way of asking that goes with `encoder`, which is asked for errors."""
  encoder(compat, form)
  return PROMPTERS[compat]


def labelled(
  tokenizer: Tokenizer,
  form: Template,
  turns: Sequence[Turn],
  *,
  has_image: bool,
  max_length: int,
) -> Labelled:
  """Encodes a conversation as the original's data set does.

  Args:
    tokenizer: the vocabulary, with transformers' habits.
    form: one of the original's templates.
    turns: as they stand in the file.
    has_image: whether the record has a picture; only then is `<image>` a placeholder.
    max_length: a text alone is cut to it, and counts are only compared below it.

  Raises:
    BadRecordError: if a caption template meets more than a picture and its caption.
  """
  turns = repaired(turns, has_image=has_image)
  text = written(form, turns)
  read = functools.partial(chunked if has_image or form.caption else tokens, tokenizer)
  ids = np.array(read(text), np.int32)
  supervised = np.ones(len(ids), bool)
  if form.caption:
    supervised[: len(read(IMAGE))] = False
    return Labelled(ids, supervised)
  if not has_image:
    ids, supervised = ids[:max_length], supervised[:max_length]
  rounds = list(_counted(form, text, read=read, legacy=tokenizer.habits.legacy))
  for begin, answer, _ in rounds:
    supervised[begin:answer] = False
  start = _RULES[form.original].start
  end = rounds[-1][-1] if rounds else start
  supervised[:start] = False
  supervised[end:] = False
  content = int((ids != pad_id(tokenizer)).sum())
  mismatch = end < max_length and end != content
  return Labelled(ids, supervised & (not mismatch), mismatch)


def collated(made: Labelled, *, pad_id: int, max_length: int) -> Collated:
  """Cuts a conversation to max_length and hides the ids that equal the padding's."""
  ids, supervised = made.ids[:max_length], made.supervised[:max_length]
  return Collated(ids, supervised, ids != pad_id)


def repaired(turns: Sequence[Turn], *, has_image: bool) -> tuple[Turn, ...]:
  """Returns turns as the original rearranges them.

  Of a record with a picture each message keeps one placeholder, in front; its first
  message gets one. Afterwards a leading answer is dropped, with its placeholder.
  """
  if has_image and turns:
    first, *rest = turns
    if IMAGE not in first.text:
      first = Turn(first.role, f"{IMAGE}\n{first.text}")
    turns = [
      turn._replace(text=one_image_first(turn.text)) if IMAGE in turn.text else turn
      for turn in (first, *rest)
    ]
  return tuple(turns[1:] if turns and turns[0].role == "gpt" else turns)


def written(form: Template, turns: Sequence[Turn], *, ask: bool = False) -> str:
  """Returns a conversation as one text; a message without text leaves its turn open.

  Args:
    form: the template.
    turns: alternate, the first one human.
    ask: ends with the cue for an answer, as a prompt does; the last turn is then human.

  Raises:
    BadRecordError: if a caption template meets more than a picture and its caption.
  """
  if form.caption:
    demand_caption(turns, ask=ask)
    return IMAGE + ("" if ask else turns[1].text + form.end)
  openings = {"human": form.question[0], "gpt": form.cue + form.lead}
  endings = {"human": form.question[1], "gpt": form.end}
  text = form.system.join(form.frame) if form.system else ""
  for role, message in (*turns, *([Turn("gpt", "")] if ask else [])):
    opening = openings[role]
    text += opening + message + endings[role] if message else opening.removesuffix(form.lead)
  return text


def tokens(tokenizer: Tokenizer, text: str) -> list[int]:
  """Returns a text's ids as transformers gives them, the begin token in front if it adds one.

  Names of tokens in the text become these tokens, whoever wrote them.
  """
  habits = tokenizer.habits
  ids = [tokenizer.bos_id] if habits.adds_bos and tokenizer.bos_id is not None else []
  if not text:
    return ids
  known = _names(tokenizer)
  if not habits.legacy:
    text = " " + text.replace(_WORD_MARK, " ")
  pieces = _pattern(tuple(known)).split(text)
  if not habits.legacy and len(pieces) > 1 and pieces[0] == " ":
    pieces[0] = ""  # the word mark of a text that begins with a token
  for piece in pieces:
    if piece in known:
      ids.append(known[piece])
    elif piece:
      ids += tokenizer.encode(piece, continues=not habits.legacy)
  return ids


def chunked(tokenizer: Tokenizer, text: str) -> list[int]:
  """Returns the ids of a text with placeholders, the chunks between them tokenised apart.

  Each chunk loses its first id where the first chunk begins with the begin token, be it
  put there by the tokenizer or by the text.
  """
  first, *rest = (tokens(tokenizer, chunk) for chunk in text.split(IMAGE))
  skipped = int(bool(first) and first[0] == tokenizer.bos_id)
  ids = list(first)
  for chunk in rest:
    ids += [PLACEHOLDER, *chunk[skipped:]]
  return ids


def pad_id(tokenizer: Tokenizer) -> int:
  """Returns what the original pads with: the unknown token, else a `<pad>` it adds."""
  if tokenizer.unk_id is not None:
    return tokenizer.unk_id
  return tokenizer.habits.names.get(_PAD, tokenizer.vocab_size)


def _constructive(
  tokenizer: Tokenizer, form: Template, turns: Sequence[Turn], *, max_length: int
) -> Encoded:
  """Encodes span by span; a row is cut once, where its pictures take their places."""
  del max_length
  return tokenize.conversation(tokenizer, form, turns)


ENCODERS: dict[str, Encoder] = {"": _constructive, "upstream": conversation}
"""What `data.compat` may be."""
PROMPTERS: dict[str, Prompter] = {"": tokenize.prompt, "upstream": prompt}
"""The same names, for prompts."""


def _counted(
  form: Template, text: str, *, read: Callable[[str], list[int]], legacy: bool
) -> Iterator[tuple[int, int, int]]:
  """Yields of each round where it begins, where its answer does, and where it ends.

  Ends at the first round that does not hold the cue for an answer exactly once.
  """
  rule = _RULES[form.original]
  cue = form.question[1] + form.cue + form.lead
  begin = rule.start
  for number, said in enumerate(_rounds(text.split(form.end), form.end, rule)):
    asked, *answers = said.split(cue)
    if len(answers) != 1:
      return
    correction = rule.correction(number > 0, legacy)
    answer = begin + len(read(asked + cue)) + rule.asked + correction
    end = begin + len(read(said)) + rule.whole + correction
    yield begin, answer, end
    begin = end


def _rounds(pieces: Sequence[str], end: str, rule: _Rule) -> Iterator[str]:
  """Yields the questions with their answers, joined of what splitting at ends of turns gave."""
  yield end.join(pieces[: rule.first])
  for n in range(rule.first, len(pieces), rule.later):
    yield end.join(pieces[n : n + rule.later])


def _names(tokenizer: Tokenizer) -> dict[str, int]:
  """Returns the tokens that are found in a text by name, the original's padding among them."""
  known = dict(tokenizer.habits.names)
  if tokenizer.unk_id is None:
    known.setdefault(_PAD, pad_id(tokenizer))
  return known


@functools.lru_cache(maxsize=8)
def _pattern(names: Iterable[str]) -> re.Pattern[str]:
  """Returns what splits a text at names, the longest first."""
  longest_first = map(re.escape, sorted(names, key=len, reverse=True))
  return re.compile(f"({'|'.join(longest_first) or '(?!)'})")
