"""Writes files as torch.save does, with the standard library and numpy only."""

import collections
import dataclasses
import io
import struct
import zipfile

import numpy as np

NAMES = {
  "float64": "DoubleStorage",
  "float32": "FloatStorage",
  "float16": "HalfStorage",
  "bfloat16": "BFloat16Storage",
  "int64": "LongStorage",
  "int32": "IntStorage",
  "int16": "ShortStorage",
  "int8": "CharStorage",
  "uint8": "ByteStorage",
  "bool": "BoolStorage",
}
ORDERED = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"


@dataclasses.dataclass
class View:
  """A tensor: the array of its whole storage, and what part of it in which order."""

  storage: np.ndarray
  shape: tuple = ()
  strides: tuple = ()
  offset: int = 0
  key: str = ""
  parameter: bool = False


def whole(array, **more):
  """The view of all of an array, row by row."""
  array = np.array(array, order="C")
  strides = tuple(step // array.itemsize for step in array.strides)
  return View(array.reshape(-1), np.shape(array), strides, **more)


def text(value):
  raw = value.encode()
  return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
  if -(2**31) <= value < 2**31:
    return b"J" + struct.pack("<i", value)
  raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
  return b"\x8a" + bytes([len(raw)]) + raw


def storage(key, count, name="FloatStorage"):
  words = (text("storage"), f"ctorch\n{name}\n".encode(), text(key), text("cpu"), number(count))
  return b"(" + b"".join(words) + b"tQ"


def rebuilt(where, *, offset=0, shape=(2,), strides=(1,), rest=b"\x89" + ORDERED + b")R"):
  """The opcodes of a tensor; `where` are those of its storage."""
  return REBUILD + b"(" + where + number(offset) + packed(shape) + packed(strides) + rest + b"tR"


def packed(values):
  return b"(" + b"".join(map(number, values)) + b"t"


def pickled(value, storages):
  """The opcodes of a value; the bytes of its tensors are put into `storages`."""
  if isinstance(value, View):
    key = value.key or str(len(storages))
    storages[key] = value.storage.tobytes()
    where = storage(key, value.storage.size, NAMES[value.storage.dtype.name])
    made = rebuilt(where, offset=value.offset, shape=value.shape, strides=value.strides)
    return PARAMETER + b"(" + made + b"\x88" + ORDERED + b")RtR" if value.parameter else made
  if isinstance(value, dict):
    items = b"".join(pickled(k, storages) + pickled(v, storages) for k, v in value.items())
    if isinstance(value, collections.OrderedDict):
      versions = b"}" + text("_metadata") + ORDERED + b")Rsb"
      return ORDERED + b")R(" + items + b"u" + versions
    return b"}(" + items + b"u"
  if isinstance(value, list | tuple):
    items = b"".join(pickled(v, storages) for v in value)
    return b"](" + items + b"e" if isinstance(value, list) else b"(" + items + b"t"
  if value is None or isinstance(value, bool):
    return {None: b"N", True: b"\x88", False: b"\x89"}[value]
  if isinstance(value, float):
    return b"G" + struct.pack(">d", value)
  return text(value) if isinstance(value, str) else number(value)


def entries(state, folder="archive"):
  """The zip entries of a saved value, as names and bytes."""
  storages = {}
  data = b"\x80\x02" + pickled(state, storages) + b"."
  return around(data, storages, folder)


def around(data, storages, folder="archive"):
  """The zip entries of a pickle and the storages it names."""
  return [
    (f"{folder}/data.pkl", data),
    (f"{folder}/byteorder", b"little"),
    *((f"{folder}/data/{key}", raw) for key, raw in storages.items()),
    (f"{folder}/version", b"3\n"),
  ]


def archived(named, compression=zipfile.ZIP_STORED):
  """The bytes of a zip archive of these entries."""
  held = io.BytesIO()
  with zipfile.ZipFile(held, "w", compression) as archive:
    for name, raw in named:
      archive.writestr(name, raw)
  return held.getvalue()


def save(state, path):
  """Writes a value as torch.save does."""
  path.write_bytes(archived(entries(state, path.stem)))
  return path
