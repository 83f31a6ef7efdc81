"""LLaVA-format records: read, checked, and counted by reason where they are unusable.

A file is a JSON list of objects or one object per line:
`{"id": …, "image": "a.jpg" or ["a.jpg", …], "conversations": [{"from": "human",
"value": "<image>\\nquestion"}, {"from": "gpt", "value": "answer"}, …]}`.

Nothing is repaired but what EAGLE's own data needs: a leading answer is dropped, and a
record with one picture and no placeholder gets one in front of its first question.

Source: EAGLE, train_mem.py, LazySupervisedDataset and preprocess_multimodal.
"""

from __future__ import annotations

import codecs
import collections
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

IMAGE = "<image>"  # stands for one picture in a message
ROLES = ("human", "gpt")
_SHOWN = 5  # bad records named in full when a run stops


class BadRecordError(EagleError):
  """A record, or a picture of it, that cannot be used.

  Attributes:
    reason: what it is counted under, the same words for every record of the kind.
    detail: what is particular to this one.
  """

  def __init__(self, reason: str, detail: str):
    super().__init__(f"{reason}: {detail}")
    self.reason = reason
    self.detail = detail


class Fault(NamedTuple):
  """A bad record by name; travels between processes."""

  place: str
  reason: str
  detail: str


class Turn(NamedTuple):
  """One message; `role` is 'human' or 'gpt'."""

  role: str
  text: str


class Record(NamedTuple):
  """One conversation about any number of pictures.

  Attributes:
    id: the record's own id, or its number.
    images: names relative to the image folder, in the order of their placeholders.
    turns: alternate, the first one human; they hold one placeholder per picture.
    file: where the record was read.
    line: line in a JSON-lines file, item in a JSON list, from 1.
  """

  id: str
  images: tuple[str, ...]
  turns: tuple[Turn, ...]
  file: str
  line: int

  @property
  def place(self) -> str:
    """File and line, as error messages name them."""
    return f"{self.file}:{self.line}"


class BadRecords:
  """Counts bad records by reason and stops the run when they are too many."""

  def __init__(self, *, budget: float, total: int):
    """Starts a count of `total` records, of which the share `budget` in [0, 1] may be bad."""
    self._budget = budget
    self._total = total
    self._faults: dict[str, Fault] = {}

  def __len__(self) -> int:
    return len(self._faults)

  @property
  def by_reason(self) -> dict[str, int]:
    """How many records are bad for each reason, most frequent first."""
    return dict(collections.Counter(f.reason for f in self._faults.values()).most_common())

  def note(self, fault: Fault) -> None:
    """Counts a record, once however often it is met."""
    self._faults.setdefault(fault.place, fault)

  def check(self) -> None:
    """Does nothing while the budget holds.

    Raises:
      EagleError: when the share of bad records is above the budget; gives the reasons
        with their counts and names the first records.
    """
    if len(self) <= self._budget * self._total:
      return
    counts = ", ".join(f"{reason} ({count})" for reason, count in self.by_reason.items())
    first = list(self._faults.values())[:_SHOWN]
    named = "".join(f"\n  {f.place}: {f.reason}: {f.detail}" for f in first)
    more = f"\n  and {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
    raise EagleError(
      f"{len(self)} of {self._total} records are unusable, data.bad_budget allows "
      f"{self._budget:.4%} of them: {counts}{named}{more}"
    )


def load(
  path: str, folder: str, *, budget: float, max_images: int, answered: bool = True
) -> tuple[list[Record], BadRecords]:
  """Reads every record and sees that its pictures are there.

  Args:
    path: the JSON or JSON-lines file.
    folder: what image names are relative to; may be empty for text alone.
    budget: share of bad records above which loading fails, in [0, 1].
    max_images: more pictures than this make a record bad.
    answered: whether a record must hold an answer, as one to be trained on must.

  Returns:
    the good records in order, and the count that goes on while pictures are decoded.

  Raises:
    EagleError: if the file or the folder is not there, the file holds no record, or
      the budget is exceeded.
  """
  if folder and not os.path.isdir(folder):
    raise EagleError(f"data.images must be a folder, {folder!r} is none")
  good: list[Record] = []
  faults = []
  for line, entry in _entries(path):
    try:
      record = parse(entry, path, line)
      _demand(record, folder, max_images=max_images, answered=answered)
    except BadRecordError as bad:
      faults.append(Fault(f"{path}:{line}", bad.reason, bad.detail))
    else:
      good.append(record)
  bad_records = BadRecords(budget=budget, total=len(good) + len(faults))
  for fault in faults:
    bad_records.note(fault)
  bad_records.check()
  if not good:
    raise EagleError(f"data.records {path!r} holds no usable record")
  return good, bad_records


def parse(entry: Any, file: str, line: int) -> Record:
  """Turns one JSON value into a record.

  Args:
    entry: the value, or the BadRecordError that reading it gave.
    file: where it stands, for messages.
    line: its line or item, from 1.

  Raises:
    BadRecordError: if a type or role is wrong, there is no turn, turns do not alternate, or
      placeholders and pictures differ in number.
  """
  if isinstance(entry, BadRecordError):
    raise entry
  if not isinstance(entry, dict):
    raise BadRecordError("wrong type", f"a record is an object, this is {_short(entry)}")
  images = _images(entry.get("image"))
  turns = _turns(entry.get("conversations"))
  if len(images) == 1 and not any(IMAGE in turn.text for turn in turns):
    turns = (Turn("human", f"{IMAGE}\n{turns[0].text}"), *turns[1:])
  placeholders = sum(turn.text.count(IMAGE) for turn in turns)
  if placeholders != len(images):
    raise BadRecordError(
      f"{IMAGE} count differs from images",
      f"the turns hold {placeholders} {IMAGE}, the record has {len(images)} images",
    )
  if any(IMAGE in turn.text for turn in turns if turn.role == "gpt"):
    raise BadRecordError(f"{IMAGE} in an answer", "only a human turn may hold a picture")
  return Record(str(entry.get("id", line)), images, turns, file, line)


def safe_join(folder: str, name: str) -> str:
  """Returns the path of `name` in `folder`, following links, if it lies inside.

  Raises:
    BadRecordError: if the name is empty, absolute, holds '..' or NUL, or leads outside
      through a symbolic link.
  """
  parts = name.replace("\\", "/").split("/")
  if not name or "\0" in name or os.path.isabs(name) or ".." in parts:
    raise BadRecordError("path leaves the image folder", f"{name!r} is no name inside data.images")
  root = os.path.realpath(folder)
  path = os.path.realpath(os.path.join(root, name))
  if os.path.commonpath([root, path]) != root or path == root:
    raise BadRecordError("path leaves the image folder", f"{name!r} leads to {path!r}")
  return path


def _entries(path: str) -> Iterator[tuple[int, Any]]:
  """Yields (line or item from 1, JSON value); a broken line yields its BadRecordError."""
  try:
    with open(path, "rb") as file:
      data = file.read().removeprefix(codecs.BOM_UTF8)
  except OSError as error:
    raise EagleError(f"data.records {path!r} cannot be read: {error.strerror}") from None
  if data.lstrip()[:1] == b"[":
    try:
      items = json.loads(data)
    except (ValueError, RecursionError) as error:
      raise EagleError(f"data.records {path!r} is no valid JSON list: {error}") from None
    yield from enumerate(items, 1)
    return
  for line, text in enumerate(data.splitlines(), 1):
    if text.strip():
      try:
        yield line, json.loads(text)
      except (ValueError, RecursionError) as error:
        yield line, BadRecordError("not JSON", str(error))


def _images(value: Any) -> tuple[str, ...]:
  """Returns the names of a record's 'image' field."""
  if value is None:
    return ()
  names = value if isinstance(value, list) else [value]
  for name in names:
    if not isinstance(name, str):
      raise BadRecordError(
        "wrong type", f"'image' is a name or a list of names, not {_short(value)}"
      )
  return tuple(names)


def _turns(value: Any) -> tuple[Turn, ...]:
  """Returns the turns of a record's 'conversations' field, from the first human one on."""
  if value is not None and not isinstance(value, list):
    raise BadRecordError("wrong type", f"'conversations' is a list, not {_short(value)}")
  turns = [_turn(entry) for entry in value or []]
  if turns and turns[0].role == "gpt":
    turns = turns[1:]
  if not turns:
    raise BadRecordError("no turns", "'conversations' holds no human turn")
  for number, turn in enumerate(turns):
    if turn.role != ROLES[number % 2]:
      raise BadRecordError("turns do not alternate", f"turn {number + 1} is {turn.role}'s again")
  return tuple(turns)


def _turn(entry: Any) -> Turn:
  """Returns one turn of a conversation."""
  if not isinstance(entry, dict):
    raise BadRecordError("wrong type", f"a turn is an object, not {_short(entry)}")
  role, text = entry.get("from"), entry.get("value")
  if role not in ROLES:
    raise BadRecordError("unknown role", f"{role!r}{nearest(str(role), ROLES)}, known: human, gpt")
  if not isinstance(text, str):
    raise BadRecordError("wrong type", f"'value' of a turn is text, not {_short(text)}")
  return Turn(role, text)


def _demand(record: Record, folder: str, *, max_images: int, answered: bool) -> None:
  """Raises BadRecordError unless the record fits a row and its pictures are files."""
  if answered and not any(turn.role == "gpt" for turn in record.turns):
    raise BadRecordError("no answer", "there is no gpt turn to learn from")
  if len(record.images) > max_images:
    raise BadRecordError(
      "too many images", f"{len(record.images)} images, data.max_images is {max_images}"
    )
  _demand_files(record.images, folder)


def _demand_files(names: Sequence[str], folder: str) -> None:
  """Raises EagleError without a folder, BadRecordError if a name leads to no file inside it."""
  if names and not folder:
    raise EagleError("data.images must name the folder of the pictures that the records use")
  for name in names:
    # A pipe or a device is no picture, and opening one may wait for ever.
    if not os.path.isfile(safe_join(folder, name)):
      raise BadRecordError("missing file", f"{name!r} is no file in {folder!r}")


def _short(value: Any) -> str:
  """Returns the JSON of a value, cut to a length that fits a message."""
  text = json.dumps(value)
  return text if len(text) <= 60 else text[:57] + "…"
