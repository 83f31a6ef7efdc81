import dataclasses

import pytest

from eagle_jax.data import conversation
from eagle_jax.data.conversation import BOS, EOS, Span, images_first, render, template
from eagle_jax.data.records import BadRecordError, Turn
from eagle_jax.errors import EagleError

SYSTEM = (
  "A chat between a curious user and an artificial intelligence assistant. The assistant "
  "gives helpful, detailed, and polite answers to the user's questions."
)
TURNS = (
  Turn("human", "<image>\nWhat is it?"),
  Turn("gpt", "A dog."),
  Turn("human", "Why?"),
  Turn("gpt", "It barks."),
)


def written(spans):
  return "".join(span.text for span in spans)


def targets(spans):
  return [span.text for span in spans if span.supervised]


@pytest.mark.parametrize(
  ("name", "want"),
  [
    (
      "v1",
      f"<s>{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A dog.</s>"
      "USER: Why? ASSISTANT: It barks.</s>",
    ),
    (
      "llava_v1",
      f"<s>{SYSTEM.replace('user', 'human')} USER: <image>\nWhat is it? ASSISTANT: A dog.</s>"
      "USER: Why? ASSISTANT: It barks.</s>",
    ),
    (
      "brief",
      "<s>USER: <image>\nWhat is it? ASSISTANT: A dog.</s>USER: Why? ASSISTANT: It barks.</s>",
    ),
    (
      "llama3",
      "<s><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n" + SYSTEM + "<|eot_id|>"
      "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
      "<|start_header_id|>assistant<|end_header_id|>\n\nA dog.<|eot_id|>"
      "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
      "<|start_header_id|>assistant<|end_header_id|>\n\nIt barks.<|eot_id|>",
    ),
    (
      "yi_34b_chatml_direct",
      "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nWhat is it?"
      "<|im_end|><|im_start|>assistant\nA dog.<|im_end|><|im_start|>user\nWhy?<|im_end|>"
      "<|im_start|>assistant\nIt barks.<|im_end|>",
    ),
  ],
)
def test_a_conversation_is_written_exactly(name, want):
  assert written(render(template(name), TURNS)) == want


@pytest.mark.parametrize(
  ("name", "want"),
  [
    ("v1", [" A dog.", EOS, " It barks.", EOS]),
    ("llama3", ["A dog.", "<|eot_id|>", "It barks.", "<|eot_id|>"]),
    ("yi_34b_chatml_direct", ["A dog.", "<|im_end|>", "It barks.", "<|im_end|>"]),
  ],
)
def test_answers_and_their_end_tokens_are_supervised_and_nothing_else(name, want):
  assert targets(render(template(name), TURNS)) == want


@pytest.mark.parametrize("name", ["v1", "llava_v1", "brief", "llama3", "yi_34b_chatml_direct"])
def test_a_prompt_is_the_beginning_of_what_is_trained_on(name):
  form = template(name)
  asked = written(render(form, TURNS[:3], ask=True))
  whole = written(render(form, TURNS))
  assert whole.startswith(asked)
  assert whole.removeprefix(asked).lstrip().startswith("It barks.")
  assert not targets(render(form, TURNS[:1], ask=True))


def test_plain_drops_the_question_and_has_no_end_token():
  spans = render(template("plain"), TURNS[:2])
  assert spans == (
    Span(BOS, "special", False),
    Span("<image>", "image", False),
    Span("A dog.\n", "text", True),
  )
  asked = render(template("plain"), TURNS[:1], ask=True)
  assert asked == spans[:2]


@pytest.mark.parametrize("turns", [TURNS, TURNS[:1], [Turn("human", "Hi"), Turn("gpt", "Ho")]])
def test_plain_takes_a_picture_and_its_caption_only(turns):
  with pytest.raises(BadRecordError) as caught:
    render(template("plain"), turns)
  assert caught.value.reason == "no caption"


def test_neighbouring_texts_are_one_span():
  spans = render(template("brief"), [Turn("human", "Hi"), Turn("gpt", "Ho")])
  assert spans == (
    Span(BOS, "special", False),
    Span("USER: Hi ASSISTANT:", "text", False),
    Span(" Ho", "text", True),
    Span(EOS, "special", True),
  )


def test_what_a_user_types_is_never_a_special_token():
  turns = [Turn("human", "</s><|eot_id|>"), Turn("gpt", "</s><|eot_id|>")]
  for name in ("v1", "llama3"):
    form = template(name)
    kinds = [span.kind for span in render(form, turns)]
    usual = [span.kind for span in render(form, [Turn("human", "a"), Turn("gpt", "b")])]
    assert kinds == usual


@pytest.mark.parametrize(
  ("text", "want"),
  [
    ("What?\n<image>", "<image>\nWhat?"),
    ("Here <image> is it", "<image>\nHere  is it"),
    ("<image>\nWhat?", "<image>\nWhat?"),
    ("<image>", "<image>"),
    ("No picture ", "No picture "),
    ("First <image> then <image>?", "First <image> then <image>?"),
  ],
)
def test_a_single_placeholder_moves_to_the_front(text, want):
  assert images_first(text) == want


def test_several_placeholders_stay_in_order_in_their_places():
  spans = render(template("brief"), [Turn("human", "A <image> or <image>?"), Turn("gpt", "A")])
  assert [span.text for span in spans[1:6]] == [
    "USER: A ",
    "<image>",
    " or ",
    "<image>",
    "? ASSISTANT:",
  ]


@pytest.mark.parametrize(
  ("name", "want"),
  [
    ("v1", "<s>Be kind.</s> USER: "),
    ("brief", "<s>Be kind.</s> USER: "),
    (
      "llama3",
      "<s><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.</s><|eot_id|>"
      "<|start_header_id|>user<|end_header_id|>\n\n",
    ),
    ("yi_34b_chatml_direct", "<|im_start|>system\nBe kind.</s><|im_end|><|im_start|>user\n"),
    ("smollm2_brief", "<|im_start|>system\nBe kind.</s><|im_end|>\n<|im_start|>user\n"),
  ],
)
def test_a_system_prompt_stands_in_the_templates_frame_and_is_plain_text(name, want):
  form = dataclasses.replace(template(name), system="Be kind.</s>")
  spans = render(form, TURNS)
  assert written(spans).startswith(want)
  assert Span("</s>", "special", False) not in spans[:8]
  assert targets(spans) == targets(render(template(name), TURNS))


def test_an_unknown_template_names_the_nearest():
  with pytest.raises(EagleError, match="did you mean 'vicuna_v1'"):
    template("vicuna")


def test_every_template_uses_its_special_tokens():
  for form in conversation.TEMPLATES.values():
    text = "".join((*form.frame, *form.question)) + form.cue + form.end
    assert all(name in text for name in form.specials)
