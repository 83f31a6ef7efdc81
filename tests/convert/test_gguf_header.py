"""GGUF's header, byte by byte; needs no package."""

import struct

import numpy as np
import pytest

from eagle_jax.convert import gguf_header
from eagle_jax.errors import EagleError

U8, U32, F32, BOOL, STRING, ARRAY, F64 = 0, 4, 6, 7, 8, 9, 12


def text(value):
  raw = value.encode() if isinstance(value, str) else value
  return struct.pack("<Q", len(raw)) + raw


def pair(key, kind, raw):
  return text(key) + struct.pack("<I", kind) + raw


def array(key, kind, count, raw):
  return pair(key, ARRAY, struct.pack("<IQ", kind, count) + raw)


def tensor(name="a", dims=(3, 2), kind=0, offset=0, axes=None):
  head = struct.pack("<I", len(dims) if axes is None else axes)
  return text(name) + head + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


def build(*, pairs=(), tensors=(), magic=b"GGUF", version=3, counts=None):
  counted = (len(tensors), len(pairs)) if counts is None else counts
  head = magic + struct.pack("<IQQ", version, *counted)
  return head + b"".join(pairs) + b"".join(tensors)


def read(tmp_path, raw):
  (tmp_path / "x.gguf").write_bytes(raw)
  return gguf_header.read(tmp_path / "x.gguf")


PAIRS = (
  pair("number", U32, struct.pack("<I", 7)),
  pair("real", F64, struct.pack("<d", 0.5)),
  pair("truth", BOOL, b"\x01"),
  pair("text", STRING, text("größe")),
  array("numbers", F32, 2, struct.pack("<2f", 1, 2)),
  array("texts", STRING, 2, text("a") + text("")),
  pair("general.alignment", U32, struct.pack("<I", 64)),
)


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_places_are_read(tmp_path, version):
  tensors = (tensor("a", (3, 2)), tensor("b", (4,), kind=1, offset=64))
  header = read(tmp_path, build(pairs=PAIRS, tensors=tensors, version=version))
  assert header.metadata == {
    "number": 7,
    "real": 0.5,
    "truth": True,
    "text": "größe",
    "numbers": [1.0, 2.0],
    "texts": ["a", ""],
    "general.alignment": 64,
  }
  assert header.base % 64 == 0
  assert header.base - 64 < header.size <= header.base
  assert header.tensors == {
    "a": gguf_header.Info((2, 3), 0, header.base),
    "b": gguf_header.Info((4,), 1, header.base + 64),
  }


HUGE = 2**63


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    (b"", "has 0 bytes"),
    (b"GGUF\x03\0\0\0", "has 8 bytes"),
    (build(magic=b"GGML"), "begins with b'GGML'"),
    (build(version=1), "it is 0x1"),
    (build(version=0x03000000), "little-endian; it is 0x3000000"),
    (build(counts=(0, HUGE)), "cut off or damaged"),
    (build(counts=(HUGE, 0)), "cut off or damaged"),
    (build(pairs=[struct.pack("<Q", HUGE)]), "asks for 9223372036854775808 bytes at byte 32"),
    (build(pairs=[pair("k", STRING, text(b"\xff"))]), "string at byte 37 is not UTF-8"),
    (build(pairs=[pair("k", 99, b"")]), "'k' has values of type 99"),
    (build(pairs=[array("k", 99, 0, b"")]), "'k' has values of type 99"),
    (build(pairs=[array("k", ARRAY, 1, b"")]), "'k' has values of type 9"),
    (build(pairs=[array("k", U8, HUGE, b"")]), "cut off or damaged"),
    (build(pairs=[array("k", STRING, HUGE, text("a"))]), "cut off or damaged"),
    (build(pairs=[PAIRS[0], PAIRS[0]]), "'number' is given twice"),
    (build(tensors=[tensor("a"), tensor("a")]), "'a' is given twice"),
    (build(tensors=[tensor(dims=())]), "1 to 4 axes, it has 0"),
    (build(tensors=[tensor(axes=2**32 - 1)]), "1 to 4 axes, it has 4294967295"),
    (build(tensors=[tensor(dims=(3, 0))]), r"no elements, its shape is \[0, 3\]"),
    *(
      (build(pairs=[pair("general.alignment", kind, raw)]), "must be a power of two")
      for kind, raw in [
        (U32, struct.pack("<I", 0)),
        (U32, struct.pack("<I", 24)),
        (F32, struct.pack("<f", 32)),
        (STRING, text("32")),
      ]
    ),
  ],
)
def test_a_damaged_header_is_told(tmp_path, raw, message):
  with pytest.raises(EagleError, match=message):
    read(tmp_path, raw)


def test_a_header_cut_off_anywhere_is_told(tmp_path):
  raw = build(pairs=PAIRS, tensors=[tensor()])
  for length in range(len(raw)):
    with pytest.raises(EagleError):
      read(tmp_path, raw[:length])


def test_flipped_bits_are_told_or_change_a_value(tmp_path):
  raw = build(pairs=PAIRS, tensors=[tensor()])
  rng = np.random.default_rng(0)
  refused = 0
  for at in rng.integers(len(raw) * 8, size=300):
    damaged = bytearray(raw)
    damaged[at // 8] ^= 1 << at % 8
    try:
      assert read(tmp_path, bytes(damaged)).tensors
    except EagleError:
      refused += 1
  assert refused > 100


def test_no_more_than_a_header_is_read(tmp_path, monkeypatch):
  raw = build(pairs=PAIRS, tensors=[tensor()])
  monkeypatch.setattr(gguf_header, "MAX_HEADER", len(raw) - 1)
  with pytest.raises(EagleError, match=f"the last is {len(raw) - 1}"):
    read(tmp_path, raw + bytes(100))
