"""How the two ways of making ids and masks differ, counted on conversations made for it.

    python -m bench.tokens --tokenizer=FOLDER --template=v1

Encodes the same conversations span by span and as the original does (`data.compat`), lays
both out as rows of 2048 positions with 1024 per picture, and prints one JSON line for
each kind of conversation and one for all. FOLDER holds a tokenizer.model or
tokenizer.json and, where its settings matter, tokenizer_config.json; --legacy overrules
that file's. A conversation counts in the first of these that applies:

  refused      the original would lose count of the images
  masked       the original masks all of it, here is something to learn
  other_ids    the rows hold other ids
  other_mask   equal ids, but other targets
  equal        the rows are equal
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from eagle_jax.data import batch, conversation, tokenize, upstream
from eagle_jax.data.records import IMAGE, BadRecordError, Turn
from eagle_jax.types import PLACEHOLDER

LENGTH, PER_IMAGE = 2048, 1024
OUTCOMES = ("refused", "masked", "other_ids", "other_mask", "equal")
QUESTIONS = ("What is shown?", "How many people are there?", "Is it raining?", "这是什么？")
TEXT = (
  "a the red house stands beside an old river where three people wait for their small dog "
  "naïve café 石桥 OPEN 24 hours, because; of: rain. no! (twice) 12345 it's"
)
WORDS = TEXT.split()
ENDINGS = ("</s>", "<|eot_id|>", "<|im_end|>", "<s>", "<|begin_of_text|>")


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the comparison; returns the exit code."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--tokenizer", required=True, help="a file, or a folder that holds one")
  parser.add_argument("--template", default="v1", help="one that the original has")
  parser.add_argument("--legacy", choices=("on", "off"), help="default: as the files say")
  parser.add_argument("--count", type=int, default=1000, help="conversations of each kind")
  options = parser.parse_args(arguments)
  tokenizer = copy.copy(tokenize.load(options.tokenizer))
  if options.legacy:
    tokenizer.habits = tokenizer.habits._replace(legacy=options.legacy == "on")
  form = conversation.template(options.template)
  total: collections.Counter[str] = collections.Counter()
  for kind, turns in corpus(options.count, caption=form.caption):
    found = collections.Counter(outcome(tokenizer, form, t) for t in turns)
    total += found
    _say(kind, found)
  _say("all", total)
  return 0


def outcome(
  tokenizer: tokenize.Tokenizer, form: conversation.Template, turns: Sequence[Turn]
) -> str:
  """Returns which of OUTCOMES a conversation has."""
  try:
    theirs = _row(tokenizer, form, turns, compat="upstream")
  except BadRecordError:
    return "refused"
  ours = _row(tokenizer, form, turns, compat="")
  if ours.loss_mask.any() and not theirs.loss_mask.any():
    return "masked"
  if not np.array_equal(ours.tokens, theirs.tokens):
    return "other_ids"
  return "equal" if np.array_equal(ours.loss_mask, theirs.loss_mask) else "other_mask"


def corpus(
  count: int, *, caption: bool = False, seed: int = 0
) -> Iterator[tuple[str, list[tuple[Turn, ...]]]]:
  """Yields kinds of conversation, `count` of each; the same ones for the same arguments.

  Args:
    count: conversations of a kind.
    caption: a picture and its caption each, as template plain wants.
    seed: of the words.
  """
  for kind, make in _CAPTIONS.items() if caption else _KINDS.items():
    # Seeded by a text, Python's generator gives the same numbers everywhere.
    chance = random.Random(f"{kind} {seed}")
    yield kind, [_turns(make(chance)) for _ in range(count)]


def _row(
  tokenizer: tokenize.Tokenizer,
  form: conversation.Template,
  turns: Sequence[Turn],
  *,
  compat: str,
) -> batch.Row:
  """Returns a conversation's row; of its pictures those that are left."""
  encoded = upstream.encoder(compat, form)(tokenizer, form, turns, max_length=LENGTH)
  pictures = np.zeros((np.count_nonzero(encoded.ids == PLACEHOLDER), 0, 0, 3), np.uint8)
  return batch.row(encoded, pictures, tokens_per_image=PER_IMAGE, max_length=LENGTH)


def _say(kind: str, found: collections.Counter[str]) -> None:
  """Prints one line."""
  counts = {name: found[name] for name in OUTCOMES}
  print(json.dumps({"kind": kind, "conversations": found.total(), **counts}))


def _turns(messages: Sequence[str]) -> tuple[Turn, ...]:
  """Returns messages as turns, the first one human."""
  return tuple(Turn(("human", "gpt")[n % 2], text) for n, text in enumerate(messages))


def _words(chance: random.Random, low: int = 2, high: int = 12) -> str:
  """Returns an answer of `low` to `high` words."""
  return " ".join(chance.choices(WORDS, k=chance.randint(low, high)))


def _rounds(chance: random.Random, low: int, high: int) -> list[str]:
  """Returns `low` to `high` questions, each with its answer."""
  number = chance.randint(low, high)
  return [m for _ in range(number) for m in (chance.choice(QUESTIONS), _words(chance))]


def _pictured(messages: Sequence[str]) -> list[str]:
  """Returns messages, a picture in front of the first."""
  return [f"{IMAGE}\n{messages[0]}", *messages[1:]]


def _with(chance: random.Random, messages: list[str], *, text: str, answer: bool) -> list[str]:
  """Returns messages, a text put between two words of some question or answer."""
  place = 2 * chance.randrange(len(messages) // 2) + int(answer)
  words = messages[place].split(" ")
  words.insert(chance.randint(1, len(words)), text)
  return [*messages[:place], " ".join(words), *messages[place + 1 :]]


def _role(chance: random.Random) -> str:
  """Returns a role's name, as a text about chats may quote it."""
  return chance.choice(("ASSISTANT:", "USER:", "ASSISTANT: hello", "assistant"))


def _emptied(chance: random.Random, *, answer: bool) -> list[str]:
  """Returns messages of which one says nothing; a lone answer always says something."""
  messages = _rounds(chance, 2, 4)
  place = 2 * chance.randrange(len(messages) // 2) + int(answer)
  return [*messages[:place], "", *messages[place + 1 :]]


def _second(chance: random.Random) -> list[str]:
  """Returns messages of which the first two questions show a picture each."""
  first, answer, second, *rest = _pictured(_rounds(chance, 2, 4))
  return [first, answer, f"{IMAGE}\n{second}", *rest]


_KINDS: dict[str, Callable[[random.Random], list[str]]] = {
  "one round": lambda c: _rounds(c, 1, 1),
  "several rounds": lambda c: _rounds(c, 2, 5),
  "one round, picture": lambda c: _pictured(_rounds(c, 1, 1)),
  "several rounds, picture": lambda c: _pictured(_rounds(c, 2, 5)),
  "picture at the end of the question": lambda c: [f"{c.choice(QUESTIONS)} {IMAGE}", _words(c)],
  "pictures in two questions": _second,
  "two pictures in one question": lambda c: _pictured(_pictured(_rounds(c, 1, 3))),
  "role word in a question": lambda c: _with(c, _rounds(c, 1, 3), text=_role(c), answer=False),
  "role word in an answer": lambda c: _with(c, _rounds(c, 1, 3), text=_role(c), answer=True),
  "<unk> in a question": lambda c: _with(c, _rounds(c, 1, 3), text="<unk>", answer=False),
  "<unk> in an answer": lambda c: _with(c, _rounds(c, 1, 3), text="<unk>", answer=True),
  "a turn's end in a message": lambda c: _with(
    c, _rounds(c, 1, 3), text=c.choice(ENDINGS), answer=c.random() < 0.5
  ),
  "spaces around an answer": lambda c: [c.choice(QUESTIONS), f" {_words(c)} "],
  "an empty question": lambda c: _emptied(c, answer=False),
  "an empty answer": lambda c: _emptied(c, answer=True),
  "very long": lambda c: [c.choice(QUESTIONS), _words(c, 1800, 2500)],
  "very long, picture": lambda c: _pictured([c.choice(QUESTIONS), _words(c, 700, 2500)]),
}

_CAPTIONS: dict[str, Callable[[random.Random], list[str]]] = {
  "caption": lambda c: [f"{IMAGE}\nDescribe it.", _words(c, 4, 20)],
  "spaces around a caption": lambda c: [IMAGE, f" {_words(c)} "],
  "<unk> in a caption": lambda c: _with(c, [IMAGE, _words(c)], text="<unk>", answer=True),
  "an empty caption": lambda c: [IMAGE, ""],
  "very long": lambda c: [IMAGE, _words(c, 700, 2500)],
}


if __name__ == "__main__":
  raise SystemExit(main())
