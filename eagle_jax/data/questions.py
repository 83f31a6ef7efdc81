"""The evaluation side of records: a question, its pictures, and the true answer apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eagle_jax import config
from eagle_jax.data import batch, conversation, image, mixture, sources, tokenize, upstream
from eagle_jax.data.records import BadRecordError, BadRecords, Record, Turn
from eagle_jax.types import Batch


class Question(NamedTuple):
  """What is asked.

  Attributes:
    record: where it comes from; its id and place name the question.
    turns: the conversation up to its last human turn, which is the question.
    truth: the answer the record gives to it, empty where it gives none.
  """

  record: Record
  turns: tuple[Turn, ...]
  truth: str


def load(data: config.Data) -> tuple[list[Question], BadRecords]:
  """Reads a records file as questions, one per record, in order.

  Raises:
    EagleError: if the file or folder is not there or too many records are unusable.
  """
  found, bad = mixture.load(data, answered=False)
  asked = [question(record) for record in sources.usable(found, bad)]
  bad.check()
  return asked, bad


def question(record: Record) -> Question:
  """Splits a record into its last question and the answer to it."""
  last = max(n for n, turn in enumerate(record.turns) if turn.role == "human")
  answer = record.turns[last + 1 :]
  return Question(record, record.turns[: last + 1], answer[0].text if answer else "")


def row(
  asked: Question,
  data: config.Data,
  tokenizer: tokenize.Tokenizer,
  *,
  image_size: int,
  tokens_per_image: int,
) -> batch.Row:
  """Makes the prompt of one question, its pictures read.

  Raises:
    BadRecordError: if a picture cannot be used; the detail names the record.
  """
  try:
    folder = asked.record.folder or data.images
    pictures = image.load(asked.record.images, data, image_size, folder=folder)
    form = mixture.spoken(conversation.template(data.template), asked.record)
    encoded = upstream.prompter(data.compat, form)(tokenizer, form, asked.turns)
  except BadRecordError as bad:
    raise BadRecordError(bad.reason, f"{asked.record.place}: {bad.detail}") from None
  return batch.row(encoded, pictures, tokens_per_image=tokens_per_image)


def prompt_batch(
  asked: Sequence[Question],
  data: config.Data,
  tokenizer: tokenize.Tokenizer,
  *,
  image_size: int,
  tokens_per_image: int,
  lengths: Sequence[int] = (),
) -> Batch:
  """Makes a left-padded batch of prompts, in the order of the questions.

  Args:
    asked: B questions.
    data: folder, template, compat, aspect, picture slots.
    tokenizer: the vocabulary.
    image_size: pixels per side.
    tokens_per_image: N.
    lengths: the lengths S that may occur; without any, the longest prompt's.

  Raises:
    EagleError: if a picture cannot be used or a prompt is longer than every length.
  """
  rows = [
    row(each, data, tokenizer, image_size=image_size, tokens_per_image=tokens_per_image)
    for each in asked
  ]
  return batch.prompt_batch(
    rows,
    max_images=data.max_images,
    image_size=image_size,
    pad_id=tokenizer.pad_id,
    lengths=lengths,
  )
