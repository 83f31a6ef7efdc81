"""Scalars in a file that TensorBoard reads, written without TensorBoard.

An event file is a row of records, each framed by its length and two checksums, each a
protocol buffer of a handful of fields. Writing them here needs no package; and a full disk
ends neither the run nor a thread that the run waits for.

Source: TensorFlow, tfrecord format ("TFRecord and tf.train.Example") and event.proto,
summary.proto.
"""

from __future__ import annotations

import pathlib
import socket
import struct
import time
from collections.abc import Mapping

from eagle_jax.train.appended import Appended

FOLDER = "tensorboard"
POLYNOMIAL = 0x82F63B78  # CRC-32C, bits reversed
MASK = 0xA282EAD8  # added to a checksum, so that a checksum of a record is none of its own
# Fields of event.proto and summary.proto: number << 3 | kind of coding.
_TIME, _STEP, _VERSION, _SUMMARY, _SESSION = 1 << 3 | 1, 2 << 3, 3 << 3 | 2, 5 << 3 | 2, 7 << 3 | 2
_VALUE, _TAG, _NUMBER, _STATUS = 1 << 3 | 2, 1 << 3 | 2, 2 << 3 | 5, 1 << 3
_START = 1  # SessionLog.START


class EventFile:
  """Writes scalars by step; each start of a run has a file of its own."""

  def __init__(self, workdir: str, *, start: int):
    """Opens a file below the run's folder.

    Args:
      workdir: folder of the run.
      start: updates that the restored state has done; TensorBoard shows nothing that an
        earlier file says of later ones.
    """
    name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}"
    self._file = Appended(pathlib.Path(workdir) / FOLDER / name)
    head = _event(0, bytes([_VERSION]) + _block(b"brain.Event:2"))
    begun = _event(start + 1, bytes([_SESSION]) + _block(bytes([_STATUS, _START])))
    self._file.append(_record(head) + _record(begun))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends the values of the update that made `step` updates done."""
    summary = b"".join(
      bytes([_VALUE])
      + _block(bytes([_TAG]) + _block(tag.encode()) + struct.pack("<Bf", _NUMBER, value))
      for tag, value in values.items()
    )
    self._file.append(_record(_event(step, bytes([_SUMMARY]) + _block(summary))))

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _event(step: int, what: bytes) -> bytes:
  """An event of now."""
  return struct.pack("<Bd", _TIME, time.time()) + bytes([_STEP]) + _varint(step) + what


def _block(content: bytes) -> bytes:
  """Bytes behind their length."""
  return _varint(len(content)) + content


def _varint(number: int) -> bytes:
  """A number that is not negative, seven bits a byte, the lowest first."""
  coded = bytearray()
  while number > 0x7F:
    coded.append(number & 0x7F | 0x80)
    number >>= 7
  return bytes([*coded, number])


def _record(content: bytes) -> bytes:
  """A record: length, its checksum, content, its checksum."""
  length = struct.pack("<Q", len(content))
  return length + _checksum(length) + content + _checksum(content)


def _table() -> tuple[int, ...]:
  """Remainders of all bytes."""
  remainders = []
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    remainders.append(byte)
  return tuple(remainders)


_REMAINDERS = _table()


def _checksum(content: bytes) -> bytes:
  """Masked CRC-32C."""
  rest = 0xFFFFFFFF
  for byte in content:
    rest = rest >> 8 ^ _REMAINDERS[(rest ^ byte) & 0xFF]
  rest ^= 0xFFFFFFFF
  return struct.pack("<I", ((rest >> 15 | rest << 17) + MASK) & 0xFFFFFFFF)
