"""Questions with pictures to answers in words.

Everything that decides a compiled shape comes from short ladders (rows, picture slots,
prompt length), so a long evaluation compiles a handful of programs and no more.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax import config
from eagle_jax.data import batch, conversation, image, questions, tokenize, upstream
from eagle_jax.data.records import IMAGE, Turn
from eagle_jax.errors import EagleError
from eagle_jax.infer.generate import Limits, Prompt, generate
from eagle_jax.infer.sampling import Sampling
from eagle_jax.infer.unstack import STACK, unstack
from eagle_jax.language.llama import Llama

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float, Int
  from PIL import Image

  from eagle_jax.data.batch import Row
  from eagle_jax.data.questions import Question
  from eagle_jax.data.tokenize import Tokenizer
  from eagle_jax.model.eagle import Eagle
  from eagle_jax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How answers are made."""

  max_new_tokens: int = 128  # tokens per answer at most
  rows: int = 8  # questions answered at once
  temperature: float = 0.0  # 0 takes the likeliest token
  top_p: float = 1.0  # share of the probability drawn from, in (0, 1]
  seed: int = 0  # of the draws


class Predictor:
  """Owns the model, its parameters in answering form, the tokenizer and what was compiled."""

  def __init__(
    self,
    eagle: Eagle,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    data: config.Data,
    settings: Settings | None = None,
  ):
    """Takes the layers apart once; `params` may be dropped by the caller afterwards.

    Args:
      eagle: the module; its dtype is that of the answers' computation.
      params: its whole tree, vision/…, projector/…, language/…, as trained.
      tokenizer: the vocabulary the model was trained with.
      data: template, compat, aspect and folder of the pictures.
      settings: how answers are made.

    Raises:
      EagleError: if the settings contradict the model, the tokenizer has more ids than the
        model has rows, or template and `data.compat` do not go together.
    """
    self.settings = settings or Settings()
    self._eagle, self._tokenizer, self._data = eagle, tokenizer, data
    size = eagle.size.language
    _demand(self.settings, size.max_positions)
    if tokenizer.vocab_size > size.vocab:
      raise EagleError(
        f"the tokenizer has {tokenizer.vocab_size} ids, the language model knows {size.vocab}: "
        "they do not belong together"
      )
    language = params["language"]
    rest = {name: leaf for name, leaf in language.items() if name != STACK}
    self._seeing = jax.tree.map(jnp.asarray, {**params, "language": rest})
    self._speaking = jax.tree.map(jnp.asarray, unstack(language))
    self._model = Llama(size, eagle.dtype, stacked=False)
    self._form = conversation.template(data.template)
    self._prompt = upstream.prompter(data.compat, self._form)
    self._ends = tokenize.stop_ids(tokenizer, self._form)
    self._lengths = ladder(size.max_positions - self.settings.max_new_tokens)
    self._drawn = 0  # batches answered, so that each draws from a key of its own

  def answers(self, asked: Sequence[Question]) -> Iterator[str]:
    """Yields one answer per question, in order, as each batch of them is done.

    Raises:
      EagleError: if a picture cannot be used or a prompt does not fit the model.
    """
    for first in range(0, len(asked), self.settings.rows):
      yield from self._say([self._row(each) for each in asked[first : first + self.settings.rows]])

  def ask(self, text: str, pictures: Sequence[Image.Image] = ()) -> str:
    """Returns the answer to one question in plain words.

    Args:
      text: the question; may say where the pictures stand by one `<image>` each, else
        they come first.
      pictures: of any size and mode.

    Raises:
      EagleError: if `<image>` is written another number of times than there are
        pictures, or the prompt does not fit the model.
    """
    side = self._eagle.size.image_size
    if IMAGE not in text:
      text = f"{IMAGE}\n" * len(pictures) + text
    encoded = self._prompt(self._tokenizer, self._form, (Turn("human", text),))
    made = [image.preprocess(image.to_rgb(each), side, self._data.aspect) for each in pictures]
    stacked = np.stack(made) if made else np.zeros((0, side, side, 3), np.uint8)
    row = batch.row(encoded, stacked, tokens_per_image=self._eagle.size.image_tokens)
    return self._say([row])[0]

  def _row(self, asked: Question) -> Row:
    """Reads the pictures of a question, [i, H, W, 3], and writes its prompt."""
    size = self._eagle.size
    return questions.row(
      asked,
      self._data,
      self._tokenizer,
      image_size=size.image_size,
      tokens_per_image=size.image_tokens,
    )

  def _say(self, rows: Sequence[Row]) -> list[str]:
    """Answers at most `settings.rows` prompts together, as tokens [B, T], then words."""
    # Rows up to the next step of the ladder repeat the first; their answers are dropped.
    missing = min(doubled(len(rows)), self.settings.rows) - len(rows)
    made = batch.prompt_batch(
      [*rows, *[rows[0]] * missing],
      max_images=doubled(max(len(row.images) for row in rows)),
      image_size=self._eagle.size.image_size,
      pad_id=self._tokenizer.pad_id,
      lengths=self._lengths,
    )
    s = self.settings
    self._drawn += 1
    out = generate(
      self._model,
      self._speaking,
      Prompt(
        embed(self._eagle, self._seeing, made), jnp.asarray(made.valid), jnp.asarray(made.positions)
      ),
      limits=Limits(
        max_new_tokens=s.max_new_tokens, eos_ids=self._ends, pad_id=self._tokenizer.pad_id
      ),
      sampling=Sampling(temperature=s.temperature, top_p=s.top_p) if s.temperature else None,
      key=jax.random.fold_in(jax.random.key(s.seed), self._drawn),
    )
    tokens, lengths = jax.device_get((out.tokens, out.lengths))
    return [self._words(tokens[b, : lengths[b]]) for b in range(len(rows))]

  def _words(self, tokens: Int[Any, " T"]) -> str:
    """Returns the text of one answer, without what ended it and without outer spaces."""
    kept = [int(token) for token in tokens if token not in self._ends]
    return self._tokenizer.decode(kept).strip()


@functools.partial(jax.jit, static_argnames="eagle")
def embed(eagle: Eagle, params: Mapping[str, Any], given: Batch) -> Float[Array, "B S D"]:
  """Returns what the language model reads; compiled once per model and shape of the batch."""
  return typing.cast("Array", eagle.apply({"params": params}, given, method="embed"))


def doubled(count: int) -> int:
  """Returns the least of 0, 1, 2, 4, 8, … that is not below `count`."""
  return 1 << (count - 1).bit_length() if count else 0


def ladder(limit: int) -> tuple[int, ...]:
  """Returns the prompt lengths that may occur: 16, 24, 32, 48, 64, 96, … and `limit` itself.

  Above 16, padding is then less than half of the prompt again.
  """
  steps = (side << n for n in range(limit.bit_length()) for side in (16, 24))
  return (*(step for step in steps if step < limit), limit)


def _demand(settings: Settings, positions: int) -> None:
  """Raises EagleError unless the settings make sense for a model of so many positions."""
  rules = (
    (
      0 < settings.max_new_tokens < positions,
      f"max_new_tokens must be positive and leave room for a prompt in the model's {positions} "
      f"positions, it is {settings.max_new_tokens}",
    ),
    (settings.rows > 0, f"rows must be positive, it is {settings.rows}"),
    (settings.temperature >= 0, f"temperature must be ≥ 0, it is {settings.temperature}"),
    (0 < settings.top_p <= 1, f"top_p must lie in (0, 1], it is {settings.top_p}"),
  )
  broken = [message for holds, message in rules if not holds]
  if broken:
    raise EagleError("; ".join(broken))
