"""Event files, against TensorFlow's published checksums and, where it is installed, TensorBoard."""

import struct

import pytest

from eagle_jax.train import tensorboard


def records(path):
  """The contents of a file's records, by the format's description."""
  data, found = path.read_bytes(), []
  while data:
    (length,) = struct.unpack("<Q", data[:8])
    content = data[12 : 12 + length]
    assert data[8:12] == tensorboard._checksum(data[:8])
    assert data[12 + length : 16 + length] == tensorboard._checksum(content)
    found.append(content)
    data = data[16 + length :]
  return found


def write(folder, start, rows):
  events = tensorboard.EventFile(str(folder), start=start)
  for step, loss in rows:
    events.write(step, {"loss": loss, "speed/mfu": 0.5})
  events.close()
  return max((folder / tensorboard.FOLDER).iterdir())


@pytest.mark.parametrize(
  ("content", "plain"),
  # Source: RFC 3720, section B.4, and the check value of the catalogue of CRCs.
  [(b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (b"123456789", 0xE3069283)],
)
def test_checksums_are_masked_crc32c(content, plain):
  masked = (((plain >> 15) | (plain << 17)) + 0xA282EAD8) & 0xFFFFFFFF
  assert tensorboard._checksum(content) == struct.pack("<I", masked)


def test_an_event_is_the_protocol_buffer_it_should_be(tmp_path):
  version, begun, row = records(write(tmp_path, 0, [(300, 2.5)]))
  assert version[9:] == b"\x10\x00" + b"\x1a\x0dbrain.Event:2"
  assert begun[9:] == b"\x10\x01" + b"\x3a\x02\x08\x01"
  values = b"".join(
    b"\x0a" + bytes([len(tag) + 7]) + b"\x0a" + bytes([len(tag)]) + tag + b"\x15" + number
    for tag, number in ((b"loss", struct.pack("<f", 2.5)), (b"speed/mfu", struct.pack("<f", 0.5)))
  )
  assert row[9:] == b"\x10\xac\x02" + b"\x2a" + bytes([len(values)]) + values
  assert row[0] == 0x09


def test_tensorboard_shows_one_curve_of_a_run_that_was_killed(tmp_path):
  reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
  write(tmp_path, 0, [(2, 4.0), (4, 3.0), (6, 9.0)])
  write(tmp_path, 4, [(6, 2.0)])
  shown = reading.EventAccumulator(str(tmp_path / tensorboard.FOLDER))
  shown.Reload()
  assert [(one.step, one.value) for one in shown.Scalars("loss")] == [(2, 4.0), (4, 3.0), (6, 2.0)]
