"""PyTorch's files, read without PyTorch and without unpickling.

Such a file is a zip archive whose entries are stored as they are: 'NAME/data.pkl' tells the
tensors, 'NAME/data/KEY' are the bytes of each storage. The first is interpreted by
`pickled`, the others are mapped into memory one tensor at a time.
"""

import dataclasses
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from eagle_jax.convert import pickled
from eagle_jax.convert.source import Entry
from eagle_jax.convert.torch_values import Tensor, kind
from eagle_jax.errors import EagleError

CONTAINERS = ("ema_state", "module", "state_dict", "model")
"""Names under which training programs keep the tensors; the first that is there counts."""

MAX_PICKLE = 16 * 2**20
"""Bytes of 'data.pkl'; a tensor takes about 200."""

LOCAL_HEADER = struct.Struct("<4s2x2H16x2H")
"""Signature, flags, compression, lengths of name and of extra field.
Source: the zip format description, section 4.3.7."""
UNREADABLE = 0x1 | 0x40 | 0x2000
"""Flags of an encrypted entry or directory."""

BEGINNINGS: Mapping[int, Mapping[bytes, str]] = {
  0: {b"\x80": "a bare pickle, which is how PyTorch saved before version 1.6"},
  257: {b"ustar": "a tar archive, which is how PyTorch saved before version 0.1.10"},
}
"""Position and bytes that tell other formats, for the message."""


@dataclasses.dataclass(frozen=True)
class _Member:
  """Where the bytes of a zip entry lie."""

  start: int
  size: int
  checksum: int


class TorchSource:
  """A file that torch.save wrote, such as .bin, .pth or .pt.

  Nothing in the file is executed, and nothing is looked up by a name that it gives. Its
  pickle and the bounds of all tensors are checked before any tensor is read.
  """

  def __init__(self, path: str | Path, containers: Sequence[str] = CONTAINERS):
    """Reads everything but the tensors.

    Args:
      path: the file.
      containers: names under which the dictionary of tensors may lie; where none is
        there, it is the outermost one.

    Raises:
      EagleError: if the file is missing or damaged, of another format, or its pickle
        holds anything that a file of tensors does not need.
    """
    self.description = str(path)
    self._path = Path(path)
    if not self._path.is_file():
      raise EagleError(f"no checkpoint at {path}: it must be a file that torch.save wrote")
    with self._path.open("rb") as file:
      _check_beginning(file, self.description)
      members = _members(file, self.description)
      folder, data = _pickle(file, members, self.description)
    prefix = f"{folder}data/"
    self._storages = {n.removeprefix(prefix): m for n, m in members.items() if n.startswith(prefix)}
    sizes = {key: member.size for key, member in self._storages.items()}
    root = pickled.interpret(data, sizes, f"{path}: data.pkl")
    self._tensors = _named(root, containers, self.description)

  def entries(self) -> Mapping[str, Entry]:
    """Returns shape and dtype of every tensor."""
    return {name: Entry(t.shape, t.storage.dtype) for name, t in self._tensors.items()}

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor [...], mapped from the file and copied only when used."""
    tensor = self._tensors[name]
    dtype, member = tensor.storage.dtype, self._storages[tensor.storage.key]
    if not math.prod(tensor.shape):
      return np.zeros(tensor.shape, dtype)
    raw = np.memmap(self._path, np.uint8, "r", member.start, (member.size,))
    elements = np.asarray(raw).view(dtype)[tensor.offset :]
    steps = [step * dtype.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements, tensor.shape, steps, writeable=False)


def _check_beginning(file: IO[bytes], where: str) -> None:
  """Refuses what is no zip archive, with the name of the format where it is known."""
  start = file.read(512)
  if start.startswith(b"PK\x03\x04"):
    return
  told = [
    format_
    for at, formats in BEGINNINGS.items()
    for begin, format_ in formats.items()
    if start[at:].startswith(begin)
  ]
  found = f"it is {told[0]}: save it again with a later one" if told else "it is no zip archive"
  raise EagleError(f"{where} is not in PyTorch's zip format: {found}")


def _members(file: IO[bytes], where: str) -> dict[str, _Member]:
  """Returns where each entry of a zip archive lies, in order.

  Raises:
    EagleError: unless all entries are stored as they are, under different names, one
      after the other and before the directory.
  """
  try:
    archive = zipfile.ZipFile(file)
  except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
    raise EagleError(f"{where}: the zip directory is damaged or cut off: {error}") from None
  members: dict[str, _Member] = {}
  end = 0
  for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
    name = entry.orig_filename
    told = f"{where}: zip entry {name[:100]!r}"
    if name in members:
      raise EagleError(f"{told} is there twice")
    if entry.flag_bits & UNREADABLE:
      raise EagleError(f"{told} is encrypted")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
      raise EagleError(f"{told} is compressed; PyTorch stores its entries as they are")
    start = _first_byte(file, entry, told)
    if entry.header_offset < end or start + entry.file_size > archive.start_dir:
      raise EagleError(
        f"{told} lies at bytes {entry.header_offset} to {start + entry.file_size}, "
        f"it must between {end} and {archive.start_dir}"
      )
    end = start + entry.file_size
    members[name] = _Member(start, entry.file_size, entry.CRC)
  return members


def _first_byte(file: IO[bytes], entry: zipfile.ZipInfo, told: str) -> int:
  """Returns where the bytes of an entry begin, which only the header before them tells."""
  # A directory that lies about its own place makes this negative; it is refused by the caller.
  file.seek(max(entry.header_offset, 0))
  header = file.read(LOCAL_HEADER.size)
  if len(header) == LOCAL_HEADER.size:
    signature, flags, compression, name, extra = LOCAL_HEADER.unpack(header)
    encoding = "utf-8" if flags & 0x800 else "cp437"
    same = file.read(name) == entry.orig_filename.encode(encoding, "replace")
    if signature == b"PK\x03\x04" and not flags & UNREADABLE and not compression and same:
      return entry.header_offset + LOCAL_HEADER.size + int(name) + int(extra)
  raise EagleError(f"{told} has a header that does not agree with the directory")


def _pickle(file: IO[bytes], members: Mapping[str, _Member], where: str) -> tuple[str, bytes]:
  """Returns the folder inside the archive, with its slash, and the pickle in it."""
  found = [name for name in members if name.split("/")[-1] == "data.pkl"]
  if len(found) != 1:
    raise EagleError(f"{where} must hold one data.pkl, it holds {len(found)}")
  folder = found[0].removesuffix("data.pkl")
  order = _content(file, members.get(f"{folder}byteorder"), f"{where}: byteorder")
  if order not in (None, b"little"):
    raise EagleError(f"{where}: numbers must be little-endian, byteorder is {order[:20]!r}")
  data = _content(file, members[found[0]], f"{where}: data.pkl")
  return folder, data or b""


def _content(file: IO[bytes], member: _Member | None, told: str) -> bytes | None:
  """Reads a small entry whole, or returns None where there is none."""
  if member is None:
    return None
  if member.size > MAX_PICKLE:
    raise EagleError(f"{told} has {member.size} bytes, at most {MAX_PICKLE} are read")
  file.seek(member.start)
  data = file.read(member.size)
  if len(data) != member.size or zlib.crc32(data) != member.checksum:
    raise EagleError(f"{told} is damaged: its checksum does not agree with the zip directory")
  return data


def _named(root: Any, containers: Sequence[str], where: str) -> dict[str, Tensor]:
  """Returns the tensors of the dictionary that holds them, by name.

  Raises:
    EagleError: if there is none, or some lie deeper than they are looked for.
  """
  if not isinstance(root, dict):
    raise EagleError(f"{where} must hold a dictionary of tensors, it holds a {kind(root)}")
  chosen = next((name for name in containers if isinstance(root.get(name), dict)), None)
  state = root if chosen is None else root[chosen]
  place = where if chosen is None else f"{where}, under {chosen!r}"
  tensors: dict[str, Tensor] = {}
  # By identity, as one dictionary may stand under any number of names.
  inner: dict[int, tuple[Any, dict[Any, Any]]] = {}
  for name, value in state.items():
    if isinstance(value, dict):
      inner[id(value)] = name, value
    elif isinstance(value, Tensor):
      if type(name) is not str or not name.isprintable():
        raise EagleError(f"{place}: a tensor must have a printable name, not {str(name)[:100]!r}")
      tensors[name] = value
  deep = [n for n, held in inner.values() if any(isinstance(v, Tensor) for v in held.values())]
  if deep or not tensors:
    found = f"there are some under {str(deep[0])[:100]!r}" if deep else "there are none"
    raise EagleError(
      f"{place} must map names to tensors, {found}; known names of an outer dictionary are "
      + ", ".join(containers)
    )
  return tensors
