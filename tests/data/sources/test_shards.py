import json
import struct

import pytest
from array_record.python import array_record_module

from eagle_jax.data import sources
from eagle_jax.data.records import BadRecordError, Limits, Record, Turn
from eagle_jax.data.sources import shards
from eagle_jax.errors import EagleError

TURNS = (Turn("human", "<image>\n<image>\nWhich is older, ü?"), Turn("gpt", "The first."))
RECORD = Record("r1", ("a.jpg", b"kept"), TURNS, "f.json", 3, "pictures")
DATA = shards.pack(RECORD, [b"first", b""])


def test_a_record_comes_back_with_its_pictures():
  got = shards.unpack(DATA, "s", 7)
  assert got == Record("r1", (b"first", b""), TURNS, "s", 7)
  assert b'"image":["a.jpg",""]' in DATA


def test_a_system_prompt_is_kept():
  given = RECORD._replace(system="Be kind.")
  assert shards.unpack(shards.pack(given, [b"first", b""]), "s", 7).system == "Be kind."


def test_every_cut_and_every_length_that_lies_is_refused():
  for end in range(len(DATA)):
    with pytest.raises(BadRecordError):
      shards.unpack(DATA[:end], "s", 1)
  with pytest.raises(BadRecordError, match="lengths do not fit"):
    shards.unpack(DATA + b"x", "s", 1)
  for at in range(4, 20, 4):
    for value in (0, 1, 10**6, 2**32 - 1):
      lying = bytearray(DATA)
      struct.pack_into("<I", lying, at, value)
      if lying == DATA:
        continue
      with pytest.raises(BadRecordError):
        shards.unpack(bytes(lying), "s", 1)


def test_what_the_text_names_must_be_there():
  told = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
  text = json.dumps(told).encode()
  data = shards.MAGIC + struct.pack("<III", len(text), 1, 3) + text + b"abc"
  with pytest.raises(BadRecordError, match="0 images are named, 1 are there"):
    shards.unpack(data, "s", 1)


def write(path, *records):
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
  for record in records:
    writer.write(record)
  writer.close()


def test_shards_are_one_source_and_a_broken_record_is_one(tmp_path):
  write(tmp_path / "x.array_record-00000-of-00002", DATA, b"nonsense")
  write(tmp_path / "x.array_record-00001-of-00002", DATA)
  source = sources.open_source(str(tmp_path), "", Limits(2))
  assert len(source) == 3
  assert source[2].line == 3
  assert source.place(1).endswith("x.array_record-00000-of-00002:2")
  with pytest.raises(BadRecordError, match="not of data build"):
    source[1]
  with pytest.raises(BadRecordError, match="too many images"):
    sources.open_source(str(tmp_path), "", Limits(1))[0]


def test_a_flipped_bit_is_found_and_hurts_one_record_alone(tmp_path):
  path = tmp_path / "x.array_record"
  records = [shards.pack(RECORD, [bytes([n]) * 50_000, b""]) for n in range(3)]
  write(path, *records)
  data = bytearray(path.read_bytes())
  data[data.index(bytes([1]) * 1000)] ^= 1
  path.write_bytes(data)
  source = sources.open_source(str(path), "", Limits(2))
  with pytest.raises(BadRecordError) as caught:
    source[1]
  assert caught.value.reason == "unreadable record"
  assert [source[n].images[0][0] for n in (0, 2)] == [0, 2]


def test_a_shard_that_has_gone_is_named(tmp_path):
  for n in range(2):
    write(tmp_path / f"a.array_record-0000{n}-of-00002", DATA, DATA)
  source = sources.open_source(str(tmp_path), "", Limits(2))
  gone = tmp_path / "a.array_record-00001-of-00002"
  gone.unlink()
  assert source[0].id == "r1"
  with pytest.raises(EagleError, match=rf"cannot be read: '{gone}'.*put it back") as caught:
    source[2]
  assert not isinstance(caught.value, BadRecordError)


def test_missing_shards_and_other_files_are_refused(tmp_path):
  write(tmp_path / "x.array_record-00000-of-00002", DATA)
  with pytest.raises(EagleError, match="holds 1 shards, their names speak of 2"):
    sources.open_source(str(tmp_path), "", Limits(2))
  other = tmp_path / "y.array_record"
  other.write_bytes(b"hello")
  with pytest.raises(EagleError, match="is no ArrayRecord"):
    sources.open_source(str(other), "", Limits(2))
