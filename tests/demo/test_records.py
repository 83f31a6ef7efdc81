import dataclasses
import json

import pytest
from PIL import Image

from eagle_jax import config
from eagle_jax.data import mixture
from eagle_jax.demo import items, records
from eagle_jax.errors import EagleError

for package in ("sklearn", "skimage", "vega_datasets", "matplotlib"):
  pytest.importorskip(package)

FEW = {name: dataclasses.replace(task, train=6, test=3) for name, task in records.TASKS.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  return records.build(tmp_path_factory.mktemp("demo"), seed=0, tasks=FEW)


def test_the_projects_own_reader_takes_every_record(made):
  for part, each in (("train", 6), ("test", 3)):
    given = config.Data(records=str(made.parts[part]), images=str(made.images), bad_budget=0.0)
    good, bad = mixture.load(given)
    assert len(bad) == 0
    assert len(good) == each * len(records.TASKS)
    assert all(good[n].turns[0].text.startswith("<image>\n") for n in range(len(good)))


def test_records_carry_task_and_sources_and_pictures_of_the_right_size(made):
  for record in records.read(made.parts["train"]):
    assert record["task"] in records.TASKS
    assert record["sources"]
    assert records.answer_of(record)
    with Image.open(made.images / record["image"]) as image:
      assert (image.size, image.mode) == ((items.SIDE, items.SIDE), "RGB")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_pictures(made, tmp_path):
  again = records.build(tmp_path / "again", seed=0, tasks=FEW)
  other = records.build(tmp_path / "other", seed=1, tasks=FEW)
  for part in items.PARTS:
    assert again.parts[part].read_bytes() == made.parts[part].read_bytes()
  names = [record["image"] for record in records.read(made.parts["train"])]
  pixels = [
    [(place.images / name).read_bytes() for name in names] for place in (made, again, other)
  ]
  assert pixels[0] == pixels[1]
  assert pixels[0] != pixels[2]


def test_the_whole_plan_shares_no_source():
  # Sources of everything the full build would draw, without writing a picture.
  sources = {}
  for part in items.PARTS:
    few = ((name, task.make(part, 40, 0)) for name, task in records.TASKS.items())
    sources[part] = [{"sources": list(i.sources)} for _, made in few for i in made]
  records.check_split(sources["train"], sources["test"])


def test_a_shared_source_is_named():
  with pytest.raises(EagleError, match="share 1: digit 4"):
    records.check_split([{"sources": ["digit 4", "x"]}], [{"sources": ["digit 4"]}])


def test_records_that_are_not_there(tmp_path):
  with pytest.raises(EagleError, match="eagle-jax demo"):
    records.read(tmp_path / "train.json")


def test_turns_are_llava_turns():
  (human, gpt) = json.loads(json.dumps(records.turns("q", "a")))
  assert (human["from"], human["value"], gpt["from"], gpt["value"]) == ("human", "q", "gpt", "a")
