"""Records of chat form: `messages` with roles and contents, and the `images` they speak of.

`{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …}], "images": […]}`.
A content is a text, or a list of parts `{"type": "text", "text": …}` and `{"type": "image"}`,
whose pictures stand where the parts do. A picture is a name, the bytes of its file, or an
object with `bytes` or `path`, as Hugging Face's `datasets` keeps it.

Source: the form of trl and of transformers' chat templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eagle_jax.data import records
from eagle_jax.data.records import IMAGE, BadRecordError, Record
from eagle_jax.registry import nearest

ROLES = {"user": "human", "assistant": "gpt", "system": records.SYSTEM}
"""Role of a message → who speaks in a record."""


def parse(entry: Any, file: str, line: int) -> Record:
  """Turns one value of either form into a record.

  Args:
    entry: an object with `conversations`, or with `messages`.
    file: where it stands, for messages of errors.
    line: its line, item or row, from 1.

  Raises:
    BadRecordError: for what `records.parse` refuses, and a role or part of another kind.
  """
  if not isinstance(entry, Mapping) or "messages" not in entry:
    return records.parse(entry, file, line)
  given = entry["messages"]
  if not isinstance(given, (list, tuple)):
    raise BadRecordError("wrong type", f"'messages' is a list, not {type(given).__name__}")
  turns = [_turn(message) for message in given]
  images = _images(entry.get("images", entry.get("image")))
  named = [each if isinstance(each, str) else "" for each in images]
  plain = {"id": entry.get("id", line), "image": named, "conversations": turns}
  return records.parse(plain, file, line)._replace(images=images)


def _turn(message: Any) -> dict[str, Any]:
  """Returns a message as a turn of `conversations`."""
  if not isinstance(message, Mapping):
    raise BadRecordError("wrong type", f"a message is an object, not {type(message).__name__}")
  role, content = message.get("role"), message.get("content")
  if not isinstance(role, str) or role not in ROLES:
    name = str(role)[:60]
    raise BadRecordError(
      "unknown role", f"{name!r}{nearest(name, ROLES)}, known: {', '.join(ROLES)}"
    )
  if isinstance(content, (list, tuple)):
    content = "".join(map(_part, content))
  return {"from": ROLES[role], "value": content}


def _part(part: Any) -> str:
  """Returns one part of a content as text."""
  kind = part.get("type") if isinstance(part, Mapping) else None
  if kind == "image":
    return IMAGE
  if kind == "text" and isinstance(part.get("text"), str):
    return str(part["text"])
  raise BadRecordError("unknown content", f"a part is text or image, not {str(kind)[:60]!r}")


def _images(value: Any) -> tuple[str | bytes, ...]:
  """Returns the pictures of a row: a list, one alone, or none."""
  if value is None:
    return ()
  several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
  return tuple(_image(each) for each in (value if several else [value]))


def _image(value: Any) -> str | bytes:
  """Returns a picture as a name or as bytes."""
  if isinstance(value, Mapping):
    value = value.get("bytes") or value.get("path")
  if not isinstance(value, (str, bytes)):
    raise BadRecordError("wrong type", f"an image is a name or bytes, not {type(value).__name__}")
  return value
