"""The data set of the demonstration as LLaVA records with PNG files, split by source.

A folder holds train.json, test.json and images/. Beside LLaVA's fields each record
carries `task` and `sources`, the ids of the real things its picture shows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from eagle_jax.demo import charts, digits, pictures, words
from eagle_jax.demo.items import PARTS, Item
from eagle_jax.demo.progress import track
from eagle_jax.errors import EagleError

Maker = Callable[[str, int, int], Iterator[Item]]
"""Part, number of items and seed → the items."""

Entry = dict[str, Any]
"""One record as it stands in the JSON file."""


@dataclasses.dataclass(frozen=True)
class Task:
  """One task of the data set.

  Attributes:
    make: draws its items.
    train: records in the training part.
    test: records in the test part.
  """

  make: Maker
  train: int
  test: int

  def count(self, part: str) -> int:
    """Returns the number of records of a part, 'train' or 'test'."""
    return self.train if part == "train" else self.test


TASKS: Mapping[str, Task] = {
  digits.TASK: Task(digits.items, train=2400, test=digits.TEST),
  pictures.TASK: Task(pictures.items, train=4400, test=240),
  charts.TASK: Task(charts.items, train=800, test=240),
  words.WORD_TASK: Task(words.words, train=300, test=200),
  words.ROW_TASK: Task(words.rows, train=300, test=200),
}
"""Tasks from easy to hard; the names are those of their modules."""


@dataclasses.dataclass(frozen=True)
class DataSet:
  """Where a data set was written.

  Attributes:
    images: the folder that image names are relative to.
    parts: 'train' and 'test' → the JSON file.
  """

  images: Path
  parts: Mapping[str, Path]


def build(out: Path, *, seed: int = 0, tasks: Mapping[str, Task] = TASKS) -> DataSet:
  """Draws every picture and writes the data set into `out`; the same seed, the same bytes.

  Args:
    out: folder, made if need be; files of an earlier build are written over.
    seed: of everything drawn at random, at least 0. The split does not depend on it.
    tasks: what to draw, and how much of it.

  Returns:
    The files written.

  Raises:
    EagleError: if a package or one of its files is missing, or a source is in both parts.
  """
  images = out / "images"
  images.mkdir(parents=True, exist_ok=True)
  entries = {part: list(_write(part, images, seed=seed, tasks=tasks)) for part in PARTS}
  check_split(entries["train"], entries["test"])
  files = {part: out / f"{part}.json" for part in PARTS}
  for part, file in files.items():
    file.write_text(json.dumps(entries[part], indent=1), encoding="utf-8")
  return DataSet(images, files)


def entry(name: str, item: Item) -> Entry:
  """Returns the record of an item whose picture is the file `name`.png."""
  return {
    "id": name,
    "image": f"{name}.png",
    "conversations": turns(f"<image>\n{item.question}", item.answer),
    "task": item.task,
    "sources": list(item.sources),
  }


def turns(question: str, answer: str) -> list[dict[str, str]]:
  """Returns one question and its answer as LLaVA writes them."""
  return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def answer_of(record: Entry) -> str:
  """Returns the answer of a record of one question."""
  return str(record["conversations"][1]["value"])


def read(file: Path) -> list[Entry]:
  """Returns the records of a JSON file that `build` wrote.

  Raises:
    EagleError: if there is none; says what makes it.
  """
  if not file.is_file():
    raise EagleError(f"the demo's records {str(file)!r} are not there; `eagle-jax demo` makes them")
  return json.loads(file.read_text(encoding="utf-8"))


def check_split(train: Iterable[Entry], test: Iterable[Entry]) -> None:
  """Demands that no source is shown in both parts.

  Raises:
    EagleError: naming the first such sources.
  """
  seen = {source for record in train for source in record["sources"]}
  shared = sorted(seen & {source for record in test for source in record["sources"]})
  if shared:
    raise EagleError(
      f"train and test must share no source, they share {len(shared)}: {', '.join(shared[:5])}"
    )


def _write(part: str, images: Path, *, seed: int, tasks: Mapping[str, Task]) -> Iterator[Entry]:
  """Writes the pictures of a part and yields its records, task after task."""
  total = sum(task.count(part) for task in tasks.values())
  for name, item in track(_named(part, seed, tasks), total, f"drawing {part} records"):
    # A low level of compression: the files are small and soon deleted.
    Image.fromarray(item.pixels).save(images / f"{name}.png", compress_level=1)
    yield entry(name, item)


def _named(part: str, seed: int, tasks: Mapping[str, Task]) -> Iterator[tuple[str, Item]]:
  """Yields id and item of every record of a part."""
  for task_name, task in tasks.items():
    for number, item in enumerate(task.make(part, task.count(part), seed)):
      yield f"{task_name}-{part}-{number:05}", item
