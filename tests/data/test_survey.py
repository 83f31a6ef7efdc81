import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from eagle_jax import config
from eagle_jax.data import mixture, survey
from eagle_jax.data.loader import Loader
from eagle_jax.data.survey import Reader, Seen, Summary
from tests.data import hostile
from tests.datasets import record

FULL = pytest.mark.skipif("EAGLE_FULL" not in os.environ, reason="minutes: EAGLE_FULL=1")


def one(data, **given):
  """The summary of the only source of the data."""
  reader = Reader(data, image_size=8, tokens_per_image=4, **given)
  (summary,) = survey.survey(data, reader)
  return summary


def test_good_records_are_counted_and_bad_ones_by_reason(dataset):
  entries = [record("9", "../a.png", "x"), record("9", "gone.png", "x"), 3]
  data = dataset(5, broken=[1, 3], entries=entries)
  summary = one(data)
  assert summary.good == 3
  assert summary.images == {1: 3}
  assert summary.turns == {2: 3}
  assert summary.positions.total() == 3
  assert summary.tally.counts == {
    "unreadable image": 2,
    "path leaves the image folder": 1,
    "missing file": 1,
    "wrong type": 1,
  }
  assert not one(dataclasses.replace(data, tokenizer="")).positions
  assert one(data, decode=False).good == 5


@pytest.mark.parametrize("compat", ["", "upstream"])
@pytest.mark.parametrize("length", [24, 64, 512])
def test_lengths_are_those_that_training_gets(dataset, tokenizer, compat, length):
  texts = [record("t", None, "word " * 40, question="Why?"), record("p", "0.png", "a " * 20)]
  data = dataset(2, entries=texts, template="v1", max_length=length, compat=compat, pack=True)
  found, _ = mixture.load(data)
  reader = Reader(data, image_size=8, tokens_per_image=4)
  loader = Loader(found, data, tokenizer=tokenizer, image_size=8, tokens_per_image=4)
  for number in range(len(found)):
    seen, row = reader(found[number]), loader.complete(loader.measure(number))
    assert (seen.kept, seen.pictures) == (len(row.tokens), len(row.images))
    assert seen.targets == row.loss_mask[1:].sum()
    assert seen.positions >= seen.kept


def test_ids_that_come_again_are_counted(dataset):
  entries = [record(name, None, "x", question="Why?") for name in ("0", "a", "a", "a", "5")]
  none = {"conversations": entries[0]["conversations"]}
  summary = one(dataset(2, entries=[*entries, none, none]), decode=False)
  # "0" again and "a" twice; the records without an id have the numbers of their items, 8 and 9.
  assert (summary.good, summary.duplicates) == (9, 3)


def test_cuts_and_fill_are_of_the_row_length():
  data = config.Data(max_length=10, max_images=1)
  summary = Summary(config.Source(records="x"), data)
  for positions, targets in ((6, 1), (4, 1), (30, 0), (5, 2)):
    kept = min(positions, 10)
    summary.add(Seen(2, 0, positions=positions, kept=kept, targets=targets))
  summary.finish()
  assert (summary.cut, summary.untaught, summary.targets) == (1, 1, 4)
  assert summary.rows == 3
  assert summary.fill == 25 / 30
  longer = Summary(config.Source(records="x"), dataclasses.replace(data, pack=True, pack_length=15))
  for kept in (6, 4, 10, 5):
    longer.add(Seen(2, 0, positions=kept, kept=kept))
  longer.finish()
  assert (longer.rows, longer.fill) == (2, 25 / 30)


def test_quantiles_and_histogram():
  counts = collections.Counter({1: 50, 7: 49, 100: 1})
  assert survey.quantiles(counts, [0.0, 0.5, 0.51, 0.99, 1.0]) == [1, 1, 7, 7, 100]
  assert survey.quantiles(collections.Counter(), [0.5]) == []
  found = survey.histogram(counts, bins=11)
  assert found[0] == (0, 9, 99)
  assert found[-1] == (100, 109, 1)
  assert len(found) == 11
  assert survey.histogram(collections.Counter({0: 3})) == [(0, 0, 3)]
  assert survey.histogram(collections.Counter()) == []


def watched(path, folder, vocabulary, *, seconds):
  """What a process says that surveys the records: it is ended only where it hangs."""
  given = (sys.executable, "-m", "tests.data.watched", path, folder, vocabulary, str(seconds))
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(given, capture_output=True, text=True, check=False, cwd=root)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def demand_as_told(told, path, expected):
  """Checks that every record is good or counted, as expected, and what reading it did besides."""
  reasons = [told["reasons"].get(f"{path}:{n}", "") for n in range(1, len(expected) + 1)]
  wrong = [
    (n, want, got)
    for n, (want, got) in enumerate(zip(expected, reasons, strict=True))
    if want not in (got, None)
  ]
  assert not wrong
  assert told["good"] + sum(told["bad"].values()) == len(expected)
  assert told["bad"] == collections.Counter(filter(None, reasons))
  assert told["outside"] == []
  assert told["peak_mb"] < 300


def survey_records(tmp_path, vocabulary, *, count, seconds):
  """Surveys hostile records."""
  folder, path, expected = hostile.lay_out(tmp_path), tmp_path / "records.jsonl", []
  with path.open("wb") as file:
    for line, outcome in hostile.records(count):
      file.write(line + b"\n")
      expected.append(outcome)
  demand_as_told(watched(path, folder, vocabulary, seconds=seconds), path, expected)


def survey_pictures(tmp_path, vocabulary, *, count, seconds):
  """Surveys records with hostile pictures."""
  folder, path, expected = hostile.lay_out(tmp_path), tmp_path / "records.jsonl", []
  with path.open("wb") as file:
    for name, data, outcome in hostile.pictures(count):
      (folder / name).write_bytes(data)
      file.write(json.dumps(hostile.record(image=name)).encode() + b"\n")
      expected.append(outcome)
  demand_as_told(watched(path, folder, vocabulary, seconds=seconds), path, expected)


def test_hostile_records_are_good_or_counted(tmp_path, vocabulary):
  survey_records(tmp_path, vocabulary, count=300, seconds=300)


def test_hostile_pictures_are_good_or_counted(tmp_path, vocabulary):
  survey_pictures(tmp_path, vocabulary, count=112, seconds=300)


@FULL
def test_full_ten_thousand_hostile_records(tmp_path, vocabulary):
  survey_records(tmp_path, vocabulary, count=10_000, seconds=3000)


@FULL
def test_full_two_thousand_hostile_pictures(tmp_path, vocabulary):
  survey_pictures(tmp_path, vocabulary, count=2000, seconds=3000)
