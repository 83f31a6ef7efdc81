import io
import json
import os
import pickle
import random
import sys

import pytest

from eagle_jax import config
from eagle_jax.data import mixture, records
from eagle_jax.data.records import Limits
from eagle_jax.data.sources import json_text
from eagle_jax.errors import EagleError

HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
GPT = {"from": "gpt", "value": "A dog."}
GIVEN = Limits(max_images=1)


def load(path, folder, *, budget=0.0, max_images=1, answered=True):
  """The usable records of a file and the count of the others."""
  data = config.Data(
    records=str(path), images=str(folder), bad_budget=budget, max_images=max_images
  )
  found, bad = mixture.load(data, answered=answered)
  return [found[n] for n in range(len(found))], bad


@pytest.fixture
def folder(tmp_path):
  made = tmp_path / "images"
  (made / "sub").mkdir(parents=True)
  (made / "a.jpg").write_bytes(b"x")
  (made / "sub" / "b.jpg").write_bytes(b"x")
  return made


def entries(*images):
  return [{"id": i, "image": i, "conversations": [HUMAN, GPT]} for i in images]


def test_list_and_lines_give_the_same_records(folder, tmp_path):
  as_list, as_lines = tmp_path / "a.json", tmp_path / "a.jsonl"
  as_list.write_text(json.dumps(entries("a.jpg", "sub/b.jpg")))
  as_lines.write_text("\ufeff" + "\n\n".join(map(json.dumps, entries("a.jpg", "sub/b.jpg"))))
  first, _ = load(as_list, folder)
  second, _ = load(as_lines, folder)
  assert [r.id for r in first] == ["a.jpg", "sub/b.jpg"]
  assert [r[:3] for r in first] == [r[:3] for r in second]
  assert [r.line for r in first] == [1, 2]
  assert [r.line for r in second] == [1, 3]


def test_bad_records_are_named_and_counted_within_the_budget(folder, tmp_path):
  path = tmp_path / "a.jsonl"
  lines = [json.dumps(e) for e in entries("a.jpg", "gone.jpg", "../a.jpg", "also_gone.jpg")]
  path.write_text("\n".join([*lines, '{"id": "cut', json.dumps({"conversations": []})]))
  good, bad = load(path, folder, budget=0.9)
  assert [r.id for r in good] == ["a.jpg"]
  assert bad.by_reason == {
    "missing file": 2,
    "path leaves the image folder": 1,
    "not JSON": 1,
    "no turns": 1,
  }


def test_above_the_budget_the_run_stops_and_says_why(folder, tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("\n".join(map(json.dumps, entries(*["a.jpg"] * 9, "gone.jpg"))))
  load(path, folder, budget=0.1)
  with pytest.raises(EagleError) as caught:
    load(path, folder, budget=0.09)
  message = str(caught.value)
  assert "1 of 10 records" in message
  assert "missing file (1)" in message
  assert f"{path}:10: missing file: 'gone.jpg'" in message


def test_a_folder_or_a_pipe_is_no_picture(folder, tmp_path):
  os.mkfifo(folder / "pipe")
  path = tmp_path / "a.json"
  path.write_text(json.dumps(entries("a.jpg", "pipe", "sub")))
  _, bad = load(path, folder, budget=0.9)
  assert bad.by_reason == {"missing file": 2}


def test_training_needs_an_answer_and_asking_does_not(folder, tmp_path):
  path = tmp_path / "a.json"
  path.write_text(json.dumps([{"image": "a.jpg", "conversations": [HUMAN]}, *entries("a.jpg")]))
  _, bad = load(path, folder, budget=0.9)
  assert bad.by_reason == {"no answer": 1}
  good, bad = load(path, folder, answered=False)
  assert len(good) == 2
  assert len(bad) == 0


def test_more_images_than_slots_are_bad(folder, tmp_path):
  path = tmp_path / "a.json"
  two = {"image": ["a.jpg"] * 2, "conversations": [{**HUMAN, "value": "<image><image>"}, GPT]}
  path.write_text(json.dumps([two, *entries("a.jpg")]))
  _, bad = load(path, folder, budget=0.9)
  assert bad.by_reason == {"too many images": 1}
  assert len(load(path, folder, max_images=2)[0]) == 2


@pytest.mark.parametrize("text", ["[1, 2", "[" * 100_000, ""])
def test_a_file_without_records_is_an_error(folder, tmp_path, text):
  path = tmp_path / "a.json"
  path.write_text(text)
  with pytest.raises(EagleError, match=r"no valid JSON list|no usable record"):
    load(path, folder)


def test_missing_places_are_errors(folder, tmp_path):
  with pytest.raises(EagleError, match="cannot be read"):
    load(tmp_path / "none.json", folder)
  path = tmp_path / "a.json"
  path.write_text(json.dumps(entries("a.jpg")))
  with pytest.raises(EagleError, match="must be a folder"):
    load(path, tmp_path / "none")
  with pytest.raises(EagleError, match="must name the folder"):
    load(path, "")


def test_a_pipe_is_refused_and_not_waited_for(folder, tmp_path):
  os.mkfifo(tmp_path / "a.json")
  with pytest.raises(EagleError, match="it is no file"):
    load(tmp_path / "a.json", folder)


@pytest.mark.parametrize("terminal", [False, True])
def test_going_through_a_long_file_is_told_of(folder, tmp_path, monkeypatch, terminal):
  path, said = tmp_path / "a.json", io.StringIO()
  path.write_text(json.dumps(entries("a.jpg") * 4))
  monkeypatch.setattr(said, "isatty", lambda: terminal)
  monkeypatch.setattr(sys, "stderr", said)
  load(path, folder)
  assert said.getvalue() == ""
  monkeypatch.setattr(json_text, "SECONDS", {terminal: 0.0})
  load(path, folder)
  lines = said.getvalue().replace("\r\x1b[K", "\n").strip().splitlines()
  assert lines[0].startswith(f"looking through {path}: 2")
  assert lines[0].endswith(" s left")
  assert len(lines) == (1 if terminal else 4)
  assert said.getvalue().endswith("\n")


def extents(path):
  with open(path, "rb", buffering=0) as file:
    data = path.read_bytes()
    return [(e.line, data[e.start : e.stop]) for e in json_text.extents(file)]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
def test_pieces_of_any_size_give_the_same_items(tmp_path, monkeypatch, piece):
  monkeypatch.setattr(json_text, "PIECE", piece)
  items = [{"a": 'x"]},{[\\'}, ["\\\\", "ü\U0001f600\\u00e4"], "}", 3, None, {"b": [{}, []]}, {}]
  path = tmp_path / "a.json"
  for text in (json.dumps(items), json.dumps(items, indent=2, ensure_ascii=False)):
    for bom in ("", "\ufeff"):
      path.write_text(f"{bom} \n{text}\n")
      found = extents(path)
      assert [line for line, _ in found] == list(range(1, len(items) + 1))
      assert [json.loads(text) for _, text in found] == items
  path.write_text("\n\n".join(map(json.dumps, items[:1] * 3)) + "\r\n \r\n{}")
  assert [line for line, _ in extents(path)] == [1, 3, 5, 7]


def test_random_values_are_cut_as_the_parser_cuts_them(tmp_path, monkeypatch):
  rng = random.Random(0)
  monkeypatch.setattr(json_text, "PIECE", 16)

  def value(depth):
    kind = rng.randrange(5 if depth else 3)
    if kind == 3:
      return [value(depth - 1) for _ in range(rng.randrange(3))]
    if kind == 4:
      return {str(n): value(depth - 1) for n in range(rng.randrange(3))}
    return (rng.random(), "".join(rng.choices('"\\[]{},: aü', k=rng.randrange(9))), None)[kind]

  path = tmp_path / "a.json"
  for _ in range(60):
    items = [value(3) for _ in range(rng.randrange(6))]
    path.write_text(json.dumps(items, indent=rng.choice([None, 1]), ensure_ascii=False))
    assert [json.loads(text) for _, text in extents(path)] == items


@pytest.mark.parametrize("text", ["[1, 2", "[1] 2", '["a', "[" * 100_000])
def test_a_list_must_end_and_end_the_file(tmp_path, text):
  path = tmp_path / "a.json"
  path.write_text(text)
  with pytest.raises(EagleError, match="no valid JSON list"):
    extents(path)


def test_a_broken_item_of_a_list_is_one_bad_record(folder, tmp_path):
  path = tmp_path / "a.json"
  good = json.dumps(entries("a.jpg")[0])
  path.write_text(f'[{good}, {{"id" 3}}, {good}, nonsense, ]')
  found, bad = load(path, folder, budget=1.0)
  assert [r.line for r in found] == [1, 3]
  assert bad.by_reason == {"not JSON": 3}


def test_a_record_that_is_too_large_is_never_read(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(records, "MAX_JSON", 300)
  small, large = entries("a.jpg", "a.jpg")
  large["more"] = "x" * 300
  for text in (json.dumps([small, large]), f"{json.dumps(small)}\n{json.dumps(large)}"):
    path = tmp_path / "a.json"
    path.write_text(text)
    found, bad = load(path, folder, budget=0.5)
    assert len(found) == 1
    assert bad.by_reason == {"record too large": 1}


def test_what_is_kept_of_a_file_is_small_and_travels(folder, tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("\n".join(map(json.dumps, entries(*["a.jpg"] * 1000))))
  source = json_text.open_source(str(path), str(folder), GIVEN)
  sent = pickle.dumps(source)
  assert len(sent) < 16 * 1000 + 2000
  assert pickle.loads(sent)[999] == source[999]
  assert source.place(999) == f"{path}:1000"


@pytest.mark.skipif(not os.environ.get("EAGLE_FULL"), reason="EAGLE_FULL=1 runs it: 200 MB")
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_full_a_large_file_takes_little_memory(folder, tmp_path, ending):
  path = tmp_path / f"large.{ending}"
  turns = [HUMAN, {**GPT, "value": "word " * 180}]
  text = json.dumps({"id": "x", "image": "a.jpg", "conversations": turns})
  count = 200_000_000 // len(text)
  between = ",\n" if ending == "json" else "\n"
  with path.open("w") as file:
    file.write("[" * (ending == "json"))
    for n in range(count):
      file.write((between if n else "") + text)
    file.write("]" * (ending == "json"))
  before = resident()
  source = json_text.open_source(str(path), str(folder), GIVEN)
  assert len(source) == count
  assert source[count - 1].turns[1].text == turns[1]["value"]
  assert resident() - before < 60_000_000


def resident():
  """Bytes of this process in memory now."""
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
