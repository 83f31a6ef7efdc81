import pytest

from eagle_jax.data import messages
from eagle_jax.data.records import BadRecordError, Turn


def parse(*given, **fields):
  return messages.parse({"messages": list(given), **fields}, "f", 3)


def said(role, content):
  return {"role": role, "content": content}


def test_messages_are_turns_and_pictures_come_as_names_or_bytes():
  record = parse(
    said("user", "<image> and <image>?"),
    said("assistant", "Two."),
    images=[{"bytes": b"png", "path": "x.png"}, {"bytes": None, "path": "b.jpg"}],
    id="k",
  )
  assert record.turns == (Turn("human", "<image> and <image>?"), Turn("gpt", "Two."))
  assert record.images == (b"png", "b.jpg")
  assert (record.id, record.place) == ("k", "f:3")


def test_parts_put_their_pictures_where_they_stand():
  parts = [{"type": "text", "text": "Left "}, {"type": "image"}, {"type": "text", "text": ", ok?"}]
  record = parse(
    said("user", parts), said("assistant", [{"type": "text", "text": "Yes"}]), image=b"1"
  )
  assert [turn.text for turn in record.turns] == ["Left <image>, ok?", "Yes"]
  assert record.images == (b"1",)


def test_the_other_form_is_read_as_ever():
  turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
  assert messages.parse({"conversations": turns}, "f", 1).turns[1] == Turn("gpt", "Ho")


def test_a_first_message_may_be_the_systems():
  record = parse(said("system", "Be kind."), said("user", "Hi"), said("assistant", "Ho"))
  assert record.system == "Be kind."
  assert record.turns == (Turn("human", "Hi"), Turn("gpt", "Ho"))


@pytest.mark.parametrize(
  ("given", "fields", "reason"),
  [
    ([said("user", "Hi"), said("system", "Be kind.")], {}, "system message"),
    ([said("system", [{"type": "image"}]), said("user", "Hi")], {}, "system message"),
    ([said("system", None), said("user", "Hi")], {}, "wrong type"),
    ([said("usr", "Hi")], {}, "unknown role"),
    ([said(None, "Hi")], {}, "unknown role"),
    ([said(["user"], "Hi")], {}, "unknown role"),
    (["Hi"], {}, "wrong type"),
    ([said("user", None)], {}, "wrong type"),
    ([said("user", [{"type": "audio"}])], {}, "unknown content"),
    ([said("user", ["Hi"])], {}, "unknown content"),
    ([said("user", [{"type": "text", "text": 3}])], {}, "unknown content"),
    ([said("user", "<image>")], {"images": [3]}, "wrong type"),
    ([said("user", "<image>")], {"images": [{"path": None}]}, "wrong type"),
    ([said("user", "<image>")], {}, "<image> count differs from images"),
    ([], {}, "no turns"),
  ],
)
def test_each_fault_has_its_reason(given, fields, reason):
  with pytest.raises(BadRecordError) as caught:
    parse(*given, **fields)
  assert caught.value.reason == reason


def test_messages_must_be_a_list():
  with pytest.raises(BadRecordError, match="'messages' is a list, not str"):
    messages.parse({"messages": "Hi"}, "f", 1)


def test_an_unknown_role_names_the_nearest():
  with pytest.raises(BadRecordError, match="did you mean 'assistant'"):
    parse(said("asistant", "Hi"))
