import os

import pytest

from eagle_jax.data import records
from eagle_jax.data.records import BadRecordError, BadRecords, Fault, Tally, Turn
from eagle_jax.errors import EagleError

HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
GPT = {"from": "gpt", "value": "A dog."}
SYSTEM = {"from": "system", "value": "Be kind."}


def parse(**fields):
  entry = {"image": "a.jpg", "conversations": [HUMAN, GPT], **fields}
  return records.parse({k: v for k, v in entry.items() if v is not None}, "f.json", 7)


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


def test_a_first_turn_may_be_the_systems():
  record = parse(conversations=[SYSTEM, GPT, {**HUMAN, "value": "What?"}, GPT])
  assert record.system == "Be kind."
  assert record.turns == (Turn("human", "<image>\nWhat?"), Turn("gpt", "A dog."))
  assert records.conversations(record) == [SYSTEM, {**HUMAN, "value": "<image>\nWhat?"}, GPT]
  assert records.conversations(parse()) == [HUMAN, GPT]


def test_a_system_prompt_may_be_unwelcome(folder):
  record = parse(conversations=[SYSTEM, HUMAN, GPT])._replace(folder=str(folder))
  records.demand(record, records.Limits(1))
  with pytest.raises(BadRecordError) as caught:
    records.demand(record, records.Limits(1, system=False))
  assert caught.value.reason == "system message"


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
    ({"conversations": [SYSTEM]}, "no turns"),
    ({"conversations": [SYSTEM, SYSTEM, HUMAN, GPT]}, "system message"),
    ({"conversations": [GPT, SYSTEM, HUMAN, GPT]}, "system message"),
    ({"conversations": [{**HUMAN, "from": "system"}, HUMAN, GPT]}, "system message"),
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


def test_what_was_found_bad_before_counts_and_is_named():
  known = Tally()
  known.add(Fault("f:1", "no turns", "x"))
  bad = BadRecords(budget=0.5, total=3, known=[known, Tally()])
  bad.check()
  bad.note(Fault("f:2", "missing file", "x"))
  assert bad.by_reason == {"no turns": 1, "missing file": 1}
  with pytest.raises(EagleError, match=r"2 of 3(.|\n)*f:1: no turns(.|\n)*f:2: missing file"):
    bad.check()


def test_half_a_character_is_no_text_and_names_no_file(folder):
  with pytest.raises(BadRecordError) as caught:
    parse(conversations=[{**HUMAN, "value": "\ud800"}, GPT])
  assert caught.value.reason == "text is no Unicode"
  for name in ("\ud800.png", "\ud800/a.png"):
    with pytest.raises(BadRecordError) as caught:
      records.demand(parse(image=name)._replace(folder=str(folder)), records.Limits(1))
    assert caught.value.reason == "missing file"


def test_messages_stay_short_however_long_a_value_is(folder):
  for act in (
    lambda: records.safe_join(str(folder), "../" * 10**5),
    lambda: parse(conversations=[{"from": "x" * 10**5, "value": ""}]),
    lambda: parse(image=[["x" * 10**5]]),
  ):
    with pytest.raises(BadRecordError) as caught:
      act()
    assert len(str(caught.value)) < 300


def test_text_of_a_record_is_read_up_to_a_limit(monkeypatch):
  assert records.decode(b'{"a": NaN}')["a"] != 0
  for text in (b"{", b"[" * 10**5, b"\xff", b"9" * 5000):
    with pytest.raises(BadRecordError) as caught:
      records.decode(text)
    assert caught.value.reason == "not JSON"
  monkeypatch.setattr(records, "MAX_JSON", 8)
  with pytest.raises(BadRecordError, match="9 bytes of JSON, 8 are allowed"):
    records.decode(b'"1234567"')
