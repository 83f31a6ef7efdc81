import json
import os

import pytest

from eagle_jax.data import records
from eagle_jax.data.records import BadRecordError, BadRecords, Fault, Turn
from eagle_jax.errors import EagleError

HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
GPT = {"from": "gpt", "value": "A dog."}


def parse(**fields):
  entry = {"image": "a.jpg", "conversations": [HUMAN, GPT], **fields}
  return records.parse({k: v for k, v in entry.items() if v is not None}, "f.json", 7)


def load(path, folder, *, budget=0.0, max_images=1, answered=True):
  return records.load(
    str(path), str(folder), budget=budget, max_images=max_images, answered=answered
  )


@pytest.fixture
def folder(tmp_path):
  made = tmp_path / "images"
  (made / "sub").mkdir(parents=True)
  (made / "a.jpg").write_bytes(b"x")
  (made / "sub" / "b.jpg").write_bytes(b"x")
  return made


def test_a_record_keeps_id_images_turns_and_place():
  record = parse(id="x1")
  assert record.id == "x1"
  assert record.images == ("a.jpg",)
  assert record.turns == (Turn("human", "<image>\nWhat is it?"), Turn("gpt", "A dog."))
  assert record.place == "f.json:7"


def test_without_an_id_the_line_is_the_id():
  assert parse().id == "7"
  assert parse(id=12).id == "12"


def test_image_may_be_a_list_or_absent():
  two = parse(image=["a", "b"], conversations=[{**HUMAN, "value": "<image><image> Compare."}, GPT])
  assert two.images == ("a", "b")
  text = parse(image=None, conversations=[{**HUMAN, "value": "Hello"}, GPT])
  assert text.images == ()


def test_one_image_without_placeholder_gets_it_in_front_of_the_first_question():
  record = parse(conversations=[{**HUMAN, "value": "What?"}, GPT, {**HUMAN, "value": "And?"}, GPT])
  assert [turn.text for turn in record.turns][:3] == ["<image>\nWhat?", "A dog.", "And?"]


def test_a_leading_answer_is_dropped_before_the_placeholder_is_put_in():
  record = parse(conversations=[GPT, {**HUMAN, "value": "What?"}, GPT])
  assert record.turns == (Turn("human", "<image>\nWhat?"), Turn("gpt", "A dog."))


@pytest.mark.parametrize(
  ("fields", "reason"),
  [
    ({"conversations": []}, "no turns"),
    ({"conversations": None}, "no turns"),
    ({"conversations": [GPT]}, "no turns"),
    ({"conversations": "hello"}, "wrong type"),
    ({"conversations": ["hello"]}, "wrong type"),
    ({"conversations": [{"from": "human", "value": 3}]}, "wrong type"),
    ({"conversations": [{"from": "human"}]}, "wrong type"),
    ({"image": 3}, "wrong type"),
    ({"image": ["a", None]}, "wrong type"),
    ({"conversations": [{"from": "humen", "value": "x"}]}, "unknown role"),
    ({"conversations": [{"value": "x"}]}, "unknown role"),
    ({"conversations": [HUMAN, HUMAN]}, "turns do not alternate"),
    ({"conversations": [HUMAN, GPT, GPT]}, "turns do not alternate"),
    ({"image": ["a", "b"]}, "<image> count differs from images"),
    ({"image": None}, "<image> count differs from images"),
    (
      {"image": ["a", "b"], "conversations": [{**HUMAN, "value": "Compare."}, GPT]},
      "<image> count differs from images",
    ),
    (
      {"conversations": [{**HUMAN, "value": "What?"}, {**GPT, "value": "an <image>"}]},
      "<image> in an answer",
    ),
  ],
)
def test_each_fault_has_its_reason(fields, reason):
  with pytest.raises(BadRecordError) as caught:
    parse(**fields)
  assert caught.value.reason == reason


def test_an_unknown_role_names_the_nearest():
  with pytest.raises(BadRecordError, match="did you mean 'human'"):
    parse(conversations=[{"from": "humen", "value": "x"}])


def test_a_record_that_is_no_object_is_bad():
  with pytest.raises(BadRecordError, match="a record is an object"):
    records.parse([1, 2], "f", 1)


@pytest.mark.parametrize(
  "name",
  ["", "..", "../a.jpg", "sub/../../a.jpg", "sub/../a.jpg", "/etc/passwd", "a\0.jpg", ".", "..\\a"],
)
def test_no_name_leaves_the_folder(folder, name):
  with pytest.raises(BadRecordError, match="leaves the image folder"):
    records.safe_join(str(folder), name)


def test_names_inside_are_joined(folder):
  assert records.safe_join(str(folder), "sub/b.jpg") == str(folder / "sub" / "b.jpg")
  assert records.safe_join(str(folder), "not_there.jpg") == str(folder / "not_there.jpg")


def test_links_may_stay_inside_and_not_lead_out(folder, tmp_path):
  (tmp_path / "secret.jpg").write_bytes(b"x")
  os.symlink(folder / "sub", folder / "inside")
  os.symlink(tmp_path, folder / "outside")
  os.symlink(tmp_path / "secret.jpg", folder / "link.jpg")
  assert records.safe_join(str(folder), "inside/b.jpg") == str(folder / "sub" / "b.jpg")
  for name in ("outside/secret.jpg", "link.jpg"):
    with pytest.raises(BadRecordError, match="leads to"):
      records.safe_join(str(folder), name)


def test_a_folder_with_a_similar_name_is_outside(folder, tmp_path):
  (tmp_path / "images2").mkdir()
  os.symlink(tmp_path / "images2", folder / "near")
  with pytest.raises(BadRecordError):
    records.safe_join(str(folder), "near/a.jpg")


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
  os.symlink(folder, tmp_path / "alias")
  assert records.safe_join(str(tmp_path / "alias"), "a.jpg") == str(folder / "a.jpg")


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


def test_a_record_is_counted_once_however_often_it_is_met():
  bad = BadRecords(budget=0.5, total=2)
  for _ in range(5):
    bad.note(Fault("f:1", "unreadable image", "x"))
    bad.check()
  assert len(bad) == 1
  bad.note(Fault("f:2", "unreadable image", "x"))
  with pytest.raises(EagleError, match="2 of 2"):
    bad.check()


def test_a_long_list_of_bad_records_is_cut():
  bad = BadRecords(budget=0.0, total=100)
  for n in range(8):
    bad.note(Fault(f"f:{n}", "no turns", "x"))
  with pytest.raises(EagleError, match="and 3 more"):
    bad.check()
