"""Chat templates as data, and the one renderer that turns a conversation into spans.

A span knows whether it is supervised, so the loss mask is built, never searched for.

Source: EAGLE, conversation.py; the texts are those of the released models.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from eagle_jax.data.records import IMAGE, BadRecordError, Turn
from eagle_jax.registry import lookup

BOS, EOS = "<s>", "</s>"
"""In a special span: the tokenizer's own ids of begin and end, whatever it calls them."""


class Span(NamedTuple):
  """A piece of a rendered conversation.

  Attributes:
    text: what it says; for a special span the name of one token.
    kind: 'text', 'special' (one token of the vocabulary) or 'image' (one placeholder).
    supervised: whether its tokens are targets.
  """

  text: str
  kind: Literal["text", "special", "image"]
  supervised: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
  """How turns are written.

  Attributes:
    system: what answers are to be like, in plain words, in front of the first turn.
    frame: text before and after the system prompt; without one neither is written.
    question: text before and after a human message.
    cue: what asks for an answer; a prompt ends with it.
    lead: between cue and answer, the first supervised characters.
    end: after an answer, supervised.
    specials: pieces of the above that are single tokens. Messages and system prompts are
      never searched for them: what a user types is always plain text.
    bos: whether the tokenizer's begin token is put in front.
    caption: the human text is dropped and only its pictures kept.
    opens: text after a special token opens a word, where the vocabulary marks words.
    original: the rule by which the original measures the loss mask of this template
      (`upstream.py`), empty where it has no such template.
  """

  system: str = ""
  frame: tuple[str, str] = ("", "")
  question: tuple[str, str] = ("", "")
  cue: str = ""
  lead: str = ""
  end: str = ""
  specials: tuple[str, ...] = ()
  bos: bool = True
  caption: bool = False
  opens: bool = False
  original: Literal["", "plain", "v1", "llama3", "yi"] = ""


def _role_names(who: str) -> Template:
  """Returns the Vicuna template, its system sentence speaking of a curious `who`."""
  return Template(
    system=f"A chat between a curious {who} and an artificial intelligence assistant. "
    f"The assistant gives helpful, detailed, and polite answers to the {who}'s questions.",
    frame=("", " "),
    question=("USER: ", " "),
    cue="ASSISTANT:",
    lead=" ",
    end=EOS,
    specials=(EOS,),
    original="v1",
  )


_VICUNA = _role_names("user")

_SMOLLM2 = Template(
  frame=("<|im_start|>system\n", "<|im_end|>\n"),
  question=("<|im_start|>user\n", "<|im_end|>\n"),
  cue="<|im_start|>assistant\n",
  end="<|im_end|>",
  specials=("<|im_start|>", "<|im_end|>"),
  bos=False,
)

TEMPLATES: dict[str, Template] = {
  "v1": _VICUNA,
  "vicuna_v1": _VICUNA,
  "llava_v1": _role_names("human"),
  "plain": Template(end="\n", caption=True, original="plain"),
  # Begins with the begin token although the tokenizer puts one there too: the released
  # Llama-3 models have only seen two of them.
  "llama3": Template(
    system=_VICUNA.system,
    frame=("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
    question=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    cue="<|start_header_id|>assistant<|end_header_id|>\n\n",
    end="<|eot_id|>",
    specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    original="llama3",
  ),
  # Opens words everywhere: the original's masks only add up with a tokenizer that does, so
  # the released model has seen nothing else.
  "yi_34b_chatml_direct": Template(
    system="Answer the questions.",
    frame=("<|im_start|>system\n", "<|im_end|>"),
    question=("<|im_start|>user\n", "<|im_end|>"),
    cue="<|im_start|>assistant\n",
    end="<|im_end|>",
    specials=("<|im_start|>", "<|im_end|>"),
    bos=False,
    opens=True,
    original="yi",
  ),
  # Source: the chat template inside SmolLM2-135M-Instruct.Q4_1.gguf.
  "smollm2": dataclasses.replace(
    _SMOLLM2,
    system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
  ),
  "smollm2_brief": _SMOLLM2,
  "brief": dataclasses.replace(_VICUNA, system="", original=""),
}


def template(name: str) -> Template:
  """Returns a template by name.

  Raises:
    EagleError: if there is none; names the nearest.
  """
  return lookup(TEMPLATES, name, what="template")


def render(form: Template, turns: Sequence[Turn], *, ask: bool = False) -> tuple[Span, ...]:
  """Writes a conversation as spans; neighbours of one kind are one span.

  Args:
    form: the template.
    turns: alternate, the first one human.
    ask: ends with the cue for an answer, as a prompt does; the last turn is then human.

  Raises:
    BadRecordError: if a caption template meets more than a picture and its caption.
  """
  if form.caption:
    demand_caption(turns, ask=ask)
  spans = [Span(BOS, "special", False)] if form.bos else []
  if form.system:
    spans += _written(form, form.frame[0], supervised=False)
    spans.append(Span(form.system, "text", False))
    spans += _written(form, form.frame[1], supervised=False)
  for turn in turns:
    if turn.role == "gpt":
      spans += _written(form, form.cue, supervised=False)
      spans.append(Span(form.lead + turn.text, "text", True))
      spans += _written(form, form.end, supervised=True)
    else:
      spans += _written(form, form.question[0], supervised=False)
      spans += _message(turn.text, pictures_only=form.caption)
      spans += _written(form, form.question[1], supervised=False)
  if ask:
    spans += _written(form, form.cue, supervised=False)
  return tuple(_joined(spans))


def images_first(text: str) -> str:
  """Returns a message with its only placeholder moved to the front, on its own line.

  The released models know no other form. Where a message holds several, their places
  carry meaning and stay as they are.

  Source: EAGLE, train_mem.py, preprocess_multimodal.
  Differs: there, several placeholders of one message become one.
  """
  return one_image_first(text) if text.count(IMAGE) == 1 else text


def one_image_first(text: str) -> str:
  """Returns a message with one placeholder in front in place of all that it holds."""
  return f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip()


def demand_caption(turns: Sequence[Turn], *, ask: bool = False) -> None:
  """Checks that turns fit a caption template.

  Args:
    turns: of one record.
    ask: the caption is asked for, so it is not there.

  Raises:
    BadRecordError: unless they are a picture and, unless asked for, its caption.
  """
  roles = [turn.role for turn in turns]
  if roles != (["human"] if ask else ["human", "gpt"]) or IMAGE not in turns[0].text:
    raise BadRecordError(
      "no caption",
      f"template plain takes one question with {IMAGE} and one answer, the turns are {roles}",
    )


def _message(text: str, *, pictures_only: bool) -> Iterator[Span]:
  """Yields the spans of a human message."""
  for number, piece in enumerate(images_first(text).split(IMAGE)):
    if number:
      yield Span(IMAGE, "image", False)
    if not pictures_only:
      yield Span(piece, "text", False)


def _written(form: Template, text: str, *, supervised: bool) -> tuple[Span, ...]:
  """Returns the spans of a template's own text, its special tokens set apart."""
  return _split(text, form.specials, supervised)


@functools.lru_cache(maxsize=256)  # templates are few, and so are their texts
def _split(text: str, specials: tuple[str, ...], supervised: bool) -> tuple[Span, ...]:
  """Returns the spans of a text, special tokens set apart."""
  if not specials:
    return (Span(text, "text", supervised),)
  pieces = re.split("(" + "|".join(map(re.escape, specials)) + ")", text)
  return tuple(Span(p, "special" if p in specials else "text", supervised) for p in pieces if p)


def _joined(spans: Sequence[Span]) -> Iterator[Span]:
  """Yields spans without empty texts, neighbouring texts of equal supervision as one."""
  waiting = None
  for span in spans:
    if span.kind == "text" and not span.text:
      continue
    if waiting and span.kind == waiting.kind == "text" and span.supervised == waiting.supervised:
      waiting = waiting._replace(text=waiting.text + span.text)
      continue
    if waiting:
      yield waiting
    waiting = span
  if waiting:
    yield waiting
