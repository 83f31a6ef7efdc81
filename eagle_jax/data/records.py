"""What a record is, when it is usable, and the count of those that are not.

The lingua franca is LLaVA's object: `{"id": …, "image": "a.jpg" or ["a.jpg", …],
"conversations": [{"from": "human", "value": "<image>\\nquestion"}, {"from": "gpt",
"value": "answer"}, …]}`. A first turn from "system" is the record's own system prompt. Where
records lie is the business of `eagle_jax.data.sources`.

Nothing is repaired but what EAGLE's own data needs: a leading answer is dropped, and a
record with one picture and no placeholder gets one in front of its first question.

Source: EAGLE, train_mem.py, LazySupervisedDataset and preprocess_multimodal.
"""

from __future__ import annotations

import collections
import functools
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from eagle_jax.errors import EagleError
from eagle_jax.registry import nearest

IMAGE = "<image>"  # stands for one picture in a message
ROLES = ("human", "gpt")
SYSTEM = "system"  # who speaks in a first turn that says what answers are to be like
MAX_JSON = 4 << 20
"""Bytes of one record without its pictures; a thousand times what fills a row."""
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
    images: in the order of their placeholders, each a name inside `folder` or the bytes
      of an encoded file.
    turns: alternate, the first one human; they hold one placeholder per picture.
    file: where the record was read.
    line: line, item or row in it, from 1.
    folder: what the names are relative to.
    system: the record's own system prompt, or its source's, in plain words; empty leaves
      the template's.
  """

  id: str
  images: tuple[str | bytes, ...]
  turns: tuple[Turn, ...]
  file: str
  line: int
  folder: str = ""
  system: str = ""

  @property
  def place(self) -> str:
    """File and line, as error messages name them."""
    return f"{self.file}:{self.line}"


class Limits(NamedTuple):
  """What a record must keep to beyond being one.

  Attributes:
    max_images: more pictures than this make a record bad.
    answered: whether a record must hold an answer, as one to be trained on must.
    system: whether a record may have a system prompt of its own.
  """

  max_images: int
  answered: bool = True
  system: bool = True


class Tally:
  """Bad records by reason, the first few kept whole: small however many there are."""

  def __init__(self) -> None:
    """Starts at nothing."""
    self.counts: collections.Counter[str] = collections.Counter()
    self.first: list[Fault] = []

  def __len__(self) -> int:
    return self.counts.total()

  def add(self, fault: Fault) -> None:
    """Counts a record that was not counted before."""
    self.counts[fault.reason] += 1
    if len(self.first) < _SHOWN:
      self.first.append(fault)


class BadRecords:
  """Counts bad records by reason and stops the run when they are too many."""

  def __init__(self, *, budget: float, total: int, known: Iterable[Tally] = ()):
    """Starts a count of `total` records, of which the share `budget` in [0, 1] may be bad.

    Args:
      budget: the share.
      total: records in all, the ones in `known` included.
      known: what was found bad before; it is not met again.
    """
    self._budget = budget
    self._total = total
    self._tally = Tally()
    self._noted: set[str] = set()
    for tally in known:
      self._tally.counts.update(tally.counts)
      self._tally.first = [*self._tally.first, *tally.first][:_SHOWN]

  def __len__(self) -> int:
    return len(self._tally)

  @property
  def by_reason(self) -> dict[str, int]:
    """How many records are bad for each reason, most frequent first."""
    return dict(self._tally.counts.most_common())

  def note(self, fault: Fault) -> None:
    """Counts a record, once however often it is met."""
    if fault.place not in self._noted:
      self._noted.add(fault.place)
      self._tally.add(fault)

  def check(self) -> None:
    """Does nothing while the budget holds.

    Raises:
      EagleError: when the share of bad records is above the budget; gives the reasons
        with their counts and names the first records.
    """
    if len(self) <= self._budget * self._total:
      return
    counts = ", ".join(f"{reason} ({count})" for reason, count in self.by_reason.items())
    named = "".join(f"\n  {f.place}: {f.reason}: {f.detail}" for f in self._tally.first)
    more = f"\n  and {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
    raise EagleError(
      f"{len(self)} of {self._total} records are unusable, data.bad_budget allows "
      f"{self._budget:.4%} of them: {counts}{named}{more}"
    )


def decode(text: bytes) -> Any:
  """Reads the JSON value of one record.

  Raises:
    BadRecordError: if it is none, or longer than MAX_JSON.
  """
  if len(text) > MAX_JSON:
    raise BadRecordError("record too large", f"{len(text)} bytes of JSON, {MAX_JSON} are allowed")
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise BadRecordError("not JSON", str(error)) from None


def parse(entry: Any, file: str, line: int) -> Record:
  """Turns one JSON value into a record.

  Args:
    entry: the value; of its fields, those that are not known are left out.
    file: where it stands, for messages.
    line: its line or item, from 1.

  Raises:
    BadRecordError: if a type or role is wrong, there is no turn, turns do not alternate, a
      system message is not the first, or placeholders and pictures differ in number.
  """
  if not isinstance(entry, Mapping):
    raise BadRecordError("wrong type", f"a record is an object, this is {_short(entry)}")
  images = _images(entry.get("image"))
  system, turns = _turns(entry.get("conversations"))
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
  return Record(str(entry.get("id", line)), images, turns, file, line, system=system)


def conversations(record: Record) -> list[dict[str, str]]:
  """Returns the turns as LLaVA's object has them, a system prompt as the first."""
  system = [Turn(SYSTEM, record.system)] if record.system else []
  return [{"from": turn.role, "value": turn.text} for turn in (*system, *record.turns)]


def safe_join(folder: str, name: str) -> str:
  """Returns the path of `name` in `folder`, following links, if it lies inside.

  Raises:
    BadRecordError: if the name is empty, absolute, holds '..' or NUL, or leads outside
      through a symbolic link.
    EagleError: if there is no folder.
  """
  if not folder:
    raise EagleError("data.images must name the folder of the pictures that the records use")
  parts = name.replace("\\", "/").split("/")
  if not name or "\0" in name or os.path.isabs(name) or ".." in parts:
    raise BadRecordError(
      "path leaves the image folder", f"{_short(name)} is no name inside data.images"
    )
  root = _real_folder(folder)
  inside, base = os.path.split(os.path.join(root, name))
  try:
    path = os.path.join(_real_folder(inside), base)
    if base in ("", ".") or os.path.islink(path):
      path = os.path.realpath(path)
  except ValueError:  # half a surrogate pair, which no file system can write
    raise BadRecordError("missing file", f"{_short(name)} can name no file") from None
  if os.path.commonpath([root, path]) != root or path == root:
    raise BadRecordError("path leaves the image folder", f"{_short(name)} leads to {path!r}")
  return path


@functools.lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
  """Returns a folder's path without links; most pictures lie beside others."""
  return os.path.realpath(folder)


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


def _turns(value: Any) -> tuple[str, tuple[Turn, ...]]:
  """Returns the system prompt of 'conversations', and its turns from the first human one on."""
  if value is not None and not isinstance(value, list):
    raise BadRecordError("wrong type", f"'conversations' is a list, not {_short(value)}")
  turns = [_turn(entry) for entry in value or []]
  system = turns.pop(0).text if turns and turns[0].role == SYSTEM else ""
  if any(turn.role == SYSTEM for turn in turns) or IMAGE in system:
    raise BadRecordError("system message", f"only the first may be one, and none holds {IMAGE}")
  if turns and turns[0].role == "gpt":
    turns = turns[1:]
  if not turns:
    raise BadRecordError("no turns", "'conversations' holds no human turn")
  for number, turn in enumerate(turns):
    if turn.role != ROLES[number % 2]:
      raise BadRecordError("turns do not alternate", f"turn {number + 1} is {turn.role}'s again")
  return system, tuple(turns)


def _turn(entry: Any) -> Turn:
  """Returns one turn of a conversation."""
  if not isinstance(entry, dict):
    raise BadRecordError("wrong type", f"a turn is an object, not {_short(entry)}")
  role, text = entry.get("from"), entry.get("value")
  known = (*ROLES, SYSTEM)
  if role not in known:
    hint = nearest(str(role)[:60], known)
    raise BadRecordError("unknown role", f"{_short(role)}{hint}, known: {', '.join(known)}")
  if not isinstance(text, str):
    raise BadRecordError("wrong type", f"'value' of a turn is text, not {_short(text)}")
  if not text.isascii():
    try:
      text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, which no tokenizer takes
      raise BadRecordError("text is no Unicode", str(error)) from None
  return Turn(role, text)


def demand(record: Record, limits: Limits) -> None:
  """Checks that a record fits a row and that its pictures are files.

  Raises:
    BadRecordError: if not.
    EagleError: if pictures are named and the record knows no folder.
  """
  if limits.answered and not any(turn.role == "gpt" for turn in record.turns):
    raise BadRecordError("no answer", "there is no gpt turn to learn from")
  if record.system and not limits.system:
    raise BadRecordError("system message", 'the original, data.compat "upstream", knows none')
  if len(record.images) > limits.max_images:
    raise BadRecordError(
      "too many images", f"{len(record.images)} images, data.max_images is {limits.max_images}"
    )
  for name in record.images:
    # A pipe or a device is no picture, and opening one may wait for ever.
    if isinstance(name, str) and not os.path.isfile(safe_join(record.folder, name)):
      raise BadRecordError("missing file", f"{_short(name)} is no file in {record.folder!r}")


def _short(value: Any) -> str:
  """Returns how a value is written, cut to a length that fits a message."""
  text = repr(value[:61] if isinstance(value, (str, list)) else value)
  return text if len(text) <= 60 else text[:57] + "…"
