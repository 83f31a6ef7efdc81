import pickle

import pytest

from eagle_jax.data import sources
from eagle_jax.data.records import BadRecordError, Limits, Turn
from eagle_jax.errors import EagleError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def rows(count, *, first=0):
  """Rows as Hugging Face's `datasets` writes them; each second one has a picture."""
  return [
    {
      "messages": [
        {"role": "user", "content": f"{'<image>' * (n % 2)}What is {n}?"},
        {"role": "assistant", "content": f"answer {n}"},
      ],
      "images": [{"bytes": b"picture %d" % n, "path": None}] * (n % 2),
      "unread": "x" * 100,
    }
    for n in range(first, first + count)
  ]


def write(path, found, *, group=3):
  parquet.write_table(pyarrow.Table.from_pylist(found), path, row_group_size=group)


def test_rows_are_read_at_random_over_groups_and_files(tmp_path):
  write(tmp_path / "train-00000-of-00002.parquet", rows(7))
  write(tmp_path / "train-00001-of-00002.parquet", rows(5, first=7))
  source = sources.open_source(str(tmp_path), "", Limits(1))
  assert len(source) == 12
  for n in (11, 0, 6, 7, 3, 2):
    record = source[n]
    assert record.turns[1] == Turn("gpt", f"answer {n}")
    assert record.images == (b"picture %d" % n,) * (n % 2)
    assert source.place(n) == record.place
  assert source.place(7).endswith("train-00001-of-00002.parquet:8")
  assert pickle.loads(pickle.dumps(source))[11] == source[11]


def test_rows_of_the_other_form_with_names_and_empty_fields(tmp_path):
  (tmp_path / "a.jpg").write_bytes(b"x")
  turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This."}]
  found = [{"conversations": turns, "image": "a.jpg"}, {"conversations": turns, "image": None}]
  write(tmp_path / "x.parquet", found)
  source = sources.open_source(str(tmp_path / "x.parquet"), str(tmp_path), Limits(1))
  assert (source[0].images, source[0].folder) == (("a.jpg",), str(tmp_path))
  assert source[1].images == ()
  (tmp_path / "a.jpg").unlink()
  with pytest.raises(BadRecordError, match="missing file"):
    source[0]


def test_a_row_may_bring_a_system_prompt(tmp_path):
  (row,) = rows(1)
  row["messages"].insert(0, {"role": "system", "content": "Be kind."})
  write(tmp_path / "x.parquet", [row])
  record = sources.open_source(str(tmp_path / "x.parquet"), "", Limits(1))[0]
  assert (record.system, len(record.turns)) == ("Be kind.", 2)


def test_other_files_are_refused(tmp_path):
  path = tmp_path / "x.parquet"
  path.write_bytes(b"hello")
  with pytest.raises(EagleError, match="is no Parquet file"):
    sources.open_source(str(path), "", Limits(1))
  parquet.write_table(pyarrow.table({"prompt": ["a"]}), path)
  with pytest.raises(EagleError, match=r"no column 'messages' or 'conversations'.* prompt"):
    sources.open_source(str(path), "", Limits(1))


def test_a_damaged_group_is_bad_records(tmp_path):
  path = tmp_path / "x.parquet"
  found = [{**row, "messages": row["messages"] * 50} for row in rows(4)]
  write(path, found, group=2)
  data = bytearray(path.read_bytes())
  data[4:400] = bytes(396)
  path.write_bytes(data)
  source = sources.open_source(str(path), "", Limits(1))
  with pytest.raises(BadRecordError) as caught:
    source[0]
  assert caught.value.reason == "unreadable record"
  assert len(source[2].turns) == 100


def test_text_that_is_no_unicode_is_a_bad_record(tmp_path):
  path = tmp_path / "x.parquet"
  parquet.write_table(
    pyarrow.Table.from_pylist(rows(2)), path, compression="none", use_dictionary=False
  )
  path.write_bytes(path.read_bytes().replace(b"What is 1?", b"What is \xff?"))
  source = sources.open_source(str(path), "", Limits(1))
  with pytest.raises(BadRecordError) as caught:
    source[1]
  assert caught.value.reason == "unreadable record"
  assert source[0].turns[1].text == "answer 0"
