import dataclasses
import json
import pathlib

import pytest

from eagle_jax import config
from eagle_jax.data import conversation, mixture, sources
from eagle_jax.data.records import Record
from eagle_jax.errors import EagleError
from tests.datasets import record


@pytest.fixture
def text(tmp_path):
  """Returns a function: a source of `count` questions without pictures."""

  def write(name, count, bad=0, **fields):
    turns = record("", "", "x", "What?")["conversations"]
    made = [{"id": f"{name}{n}", "conversations": turns} for n in range(count)]
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps([*made, *[{}] * bad]))
    return config.Source(records=str(path), **fields)

  return write


def load(*given, **fields):
  return mixture.load(config.Data(sources=given, **fields))


def test_records_are_numbered_through_and_know_their_source(text):
  found, bad = load(text("a", 3, bad=1), text("b", 2, system="Be brief."), bad_budget=0.2)
  assert len(found) == found.epoch == 5
  assert [found[n].id for n in range(5)] == ["a0", "a1", "a2", "b0", "b1"]
  assert [found[n].system for n in (2, 3)] == ["", "Be brief."]
  assert pathlib.Path(found.place(4)).name == "b.json:2"
  assert list(found.following(1)) == [1, 2, 0]
  assert list(found.following(3)) == [3, 4]
  assert bad.by_reason == {"no turns": 1}


def test_the_budget_is_of_all_sources_together(text):
  given = [text("a", 1, bad=1), text("b", 8)]
  load(*given, bad_budget=0.1)
  with pytest.raises(EagleError, match="1 of 10 records"):
    load(*given, bad_budget=0.09)
  with pytest.raises(EagleError, match=r"c\.json' holds no usable record"):
    load(text("c", 0), *given, bad_budget=1.0)


def test_a_run_can_say_what_it_was_trained_on(text):
  found, _ = load(text("a", 8, licence="CC0", cap=2), text("b", 2))
  told = json.loads(json.dumps(found.describe()))
  assert [(s["licence"], s["usable"], s["used"], s["share"]) for s in told] == [
    ("CC0", 8, 2, 0.5),
    ("", 2, 2, 0.5),
  ]
  weighted, _ = load(text("a", 8, weight=3.0), text("b", 2, weight=1.0))
  assert [s["share"] for s in weighted.describe()] == [0.75, 0.25]
  assert found.bounds() == [(0, 8, 2), (8, 10, 2)]


def test_records_and_images_are_the_short_form_of_one_source(dataset):
  data = dataset(2)
  short, _ = mixture.load(data)
  long = dataclasses.replace(
    data,
    records="",
    images="",
    sources=(config.Source(records=data.records, images=data.images),),
  )
  assert mixture.listed(data) == long.sources
  assert mixture.load(long)[0][1] == short[1]


def test_a_system_prompt_takes_the_place_of_the_templates():
  form = conversation.template("v1")
  plain = Record("", (), (), "f", 1)
  assert mixture.spoken(form, plain) is form
  own = plain._replace(system="Answer.")
  assert mixture.spoken(form, own) == dataclasses.replace(form, system="Answer.")
  caption = conversation.template("plain")
  assert mixture.spoken(caption, own) is caption


def test_a_records_own_system_prompt_comes_before_its_sources(tmp_path):
  turns = record("", "", "x", "What?")["conversations"]
  rows = [
    {"conversations": [{"from": "system", "value": "Own."}, *turns]},
    {"conversations": turns},
  ]
  path = tmp_path / "a.json"
  path.write_text(json.dumps(rows))
  given = config.Source(records=str(path), system="The source's.")
  found, _ = load(given)
  assert [found[n].system for n in range(2)] == ["Own.", "The source's."]
  found, bad = load(given, compat="upstream", bad_budget=0.5)
  assert [found[n].system for n in range(len(found))] == ["The source's."]
  assert bad.by_reason == {"system message": 1}


def test_formats_are_told_by_name_and_refused_with_the_nearest(tmp_path):
  assert sources.recognise("a/b.jsonl") == ("json", "a/b.jsonl")
  assert sources.recognise("x.array_record-00001-of-00003")[0] == "array_record"
  assert sources.recognise("json:what/ever.txt") == ("json", "what/ever.txt")
  with pytest.raises(EagleError, match=r"has the suffix '\.jsnl', did you mean '\.json"):
    sources.recognise("a.jsnl")
  with pytest.raises(EagleError, match="format of records is called 'parqet', did you mean 'parq"):
    sources.recognise("parqet:a")
  (tmp_path / "notes.json").write_text("[]")
  with pytest.raises(EagleError, match=r"a folder of one format.*holds notes\.json"):
    sources.recognise(str(tmp_path))
  (tmp_path / "a.parquet").write_text("")
  assert sources.recognise(str(tmp_path))[0] == "parquet"
  with pytest.raises(EagleError, match="must be a folder"):
    sources.open_source("a.json", str(tmp_path / "notes.json"), sources.Limits(1))
